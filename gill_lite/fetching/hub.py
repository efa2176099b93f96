"""Models of the Hugging Face hub at a pinned commit, into the hub's own cache, as safetensors.

Pickles, code and whatever else a repository holds stay where they are. A commit that has its
weights as pickles only is converted: the tensors, read with weights_only=True, become
safetensors files beside the model's configuration, where from_pretrained finds them.
"""

import errno
import os
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tqdm.auto import tqdm

from gill_lite.errors import GillError
from gill_lite.fetching.checksums import Checksums
from gill_lite.fetching.network import AGAIN, cause
from gill_lite.fetching.sources import Model
from gill_lite.files import CannotWrite, sha256, writing

PICKLES = "pytorch_model*.bin"
SHARD = 2 * 10**9  # bytes of tensors in one converted file
UNSAFE = (".bin", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".py", ".h5", ".msgpack")


@dataclass
class Plan:
    """What is to be done for one model: name -> size in bytes, sha256 if the hub gives one."""

    model: Model
    revision: str
    wanted: dict[str, tuple[int, str | None]]
    pickles: dict[str, tuple[int, str | None]]  # to convert; empty where there is safetensors
    missing: int  # bytes of `wanted` still to download

    @property
    def to_convert(self) -> int:
        """Bytes of the pickles: once in the data folder, once more as safetensors."""
        return sum(size for size, _ in self.pickles.values())


def cache_dir() -> Path:
    """The hub's cache, which HF_HOME and HF_HUB_CACHE move."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_here(model: Model, checksums: Checksums) -> bool:
    """Whether every file recorded for the model is in the cache; their sha256 is compared.

    Raises GillError where one is not the file that was recorded.
    """
    known = checksums.models.get(model.repo, {})
    if not known or known["revision"] != (model.revision or known["revision"]):
        return False
    folder = _snapshot(model.repo, known["revision"])
    if not all((folder / name).is_file() for name in known["files"]):
        return False
    for name, digest in tqdm(known["files"].items(), desc="checking sha256", delay=2):
        if sha256(folder / name) != digest:
            raise GillError(
                f"{folder / name} is not the file that was downloaded (its sha256 is not that "
                f"of {checksums.path}); delete {folder.parents[1]} and fetch it again"
            )
    return True


def plan(model: Model, checksums: Checksums) -> Plan:
    """Ask the hub what the model's commit holds. Raises GillError where it cannot be asked."""
    recorded = checksums.models.get(model.repo, {}).get("revision")
    revision = model.revision or recorded or "main"
    info = _ask(model.repo, "model_info", revision=revision, files_metadata=True)
    if revision not in ("main", info.sha):
        raise GillError(
            f"the hub answers with commit {info.sha} of {model.repo} where {revision} was asked "
            "for; check HF_ENDPOINT"
        )
    files = {s.rfilename: (s.size or 0, s.lfs.sha256 if s.lfs else None) for s in info.siblings}
    wanted = {n: v for n, v in files.items() if any(fnmatch(n, p) for p in model.patterns)}
    wanted = {n: v for n, v in wanted.items() if not n.endswith(UNSAFE)}
    pickles = {}
    if not any(name.endswith(".safetensors") for name in wanted):
        pickles = {n: v for n, v in files.items() if fnmatch(n, PICKLES)}
        if not pickles:
            raise GillError(
                f"commit {info.sha} of {model.repo} holds no weights of the names looked for "
                f"({', '.join(model.patterns)})"
            )
    folder = _snapshot(model.repo, info.sha)
    missing = sum(size for name, (size, _) in wanted.items() if not (folder / name).is_file())
    return Plan(model, info.sha, wanted, pickles, missing)


def fetch_model(plan: Plan, checksums: Checksums) -> Path:
    """Download (and convert) what `plan` says; returns the snapshot folder in the cache."""
    repo = plan.model.repo
    options: dict = {"revision": plan.revision}
    folder = Path(_ask(repo, "snapshot_download", allow_patterns=[*plan.wanted], **options))
    digests = _checked(folder, plan.wanted, repo)
    if plan.pickles:
        temporary = checksums.data_dir / f".pickles-{plan.revision[:8]}"
        options |= {"allow_patterns": [*plan.pickles], "local_dir": temporary}
        _ask(repo, "snapshot_download", **options)
        _checked(temporary, plan.pickles, repo)
        print(f"{repo}: turning its pickles into safetensors")
        names = convert_pickles([temporary / name for name in sorted(plan.pickles)], folder)
        digests |= {name: sha256(folder / name) for name in names}
        shutil.rmtree(temporary)
    checksums.models[repo] = {"revision": plan.revision, "files": digests}
    checksums.save()
    return folder


def convert_pickles(paths: list[Path], folder: Path) -> list[str]:
    """Turn the shards `paths` of a PyTorch checkpoint into safetensors in `folder`.

    Returns the names written: files of some 2 GB and the index that from_pretrained reads, which
    comes last. Nothing in the shards is executed. Raises GillError where one is damaged.
    """
    import torch
    from huggingface_hub import save_torch_state_dict

    tensors: dict = {}
    for path in paths:  # mapped, not read: they need no memory
        try:
            tensors |= torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:  # unpickling raises anything on damaged bytes
            raise GillError(f"{path} cannot be read safely: {error}; fetch it again") from error
    made = folder / ".converting"
    shutil.rmtree(made, ignore_errors=True)  # of a run that was killed
    with writing(folder):
        made.mkdir()
        save_torch_state_dict(tensors, made, max_shard_size=SHARD)
        names = sorted(os.listdir(made))  # "model-..." before "model.safetensors.index.json"
        for name in names:
            os.replace(made / name, folder / name)
        made.rmdir()
    return names


def _checked(folder: Path, files: dict, repo: str) -> dict[str, str]:
    """sha256 by name. Raises GillError where one is not what the hub publishes."""
    digests = {}
    for name, (_, published) in tqdm(files.items(), desc="checking sha256", delay=2):
        digests[name] = sha256(folder / name)
        if published and digests[name] != published:
            blob = (folder / name).resolve()
            (folder / name).unlink()
            blob.unlink(missing_ok=True)
            raise GillError(
                f"{name} of {repo} does not have the sha256 that the hub publishes; nothing of "
                "it is kept: run the same command again"
            )
    return digests


def _snapshot(repo: str, revision: str) -> Path:
    return cache_dir() / f"models--{repo.replace('/', '--')}" / "snapshots" / revision


def _ask(repo: str, what: str, **options):
    """One call of huggingface_hub; what goes wrong becomes one sentence."""
    import huggingface_hub

    try:
        return getattr(huggingface_hub, what)(repo, **options)
    except Exception as error:  # HTTP libraries differ between versions of huggingface_hub
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            who = f"the hub's cache {cache_dir()}, which HF_HOME names"
            raise CannotWrite(who, error) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        found = cause(error, huggingface_hub.constants.ENDPOINT)
        what, mend = found or (reason, AGAIN)
        raise GillError(
            f"{repo} cannot be fetched from the hub ({what}); {mend}; what is complete is kept"
        ) from error
