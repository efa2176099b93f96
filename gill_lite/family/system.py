"""What all systems of the family share: the budget, stages of learning, how weights are kept.

All systems of a task have one budget: so many batches of so many pairs, over all stages of a system
together, drawn from the same training pictures. Who is shown pictures has as many pairs as GILL's
own joints; who learns to draw from nothing, as many as the mini GLIDE, which is half those of the
mini Stable Diffusion. MiniGPT-4 stands upon a trained BLIP-2, whose budget is not counted again.
"""

import hashlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gill_lite.errors import GillError
from gill_lite.evaluation.drawers import weights_sha256
from gill_lite.family import DRAW, SEE, TEACH, get_system, has_code
from gill_lite.files import (
    only_one,
    read_json,
    read_rows,
    refuse_pointer,
    sha256,
    shipped,
    write_bytes,
    write_json,
)
from gill_lite.model.backbones import Backbones, fingerprint, load_backbones
from gill_lite.pretraining.autoencoder import encode_all
from gill_lite.pretraining.loop import fit
from gill_lite.pretraining.pretrain import chosen_device, made
from gill_lite.profiles import MINI
from gill_lite.world.pictures import signed_pixels, training_caption, training_images


class Budget(NamedTuple):
    """What a system may learn from: `steps` batches of `batch` pairs."""

    steps: int
    batch: int


BUDGETS = {SEE: Budget(1_350, 32), DRAW: Budget(3_600, 48), TEACH: Budget(300, 32)}
WATCH_EVERY = 50  # steps
WEIGHTS, CONFIG, MANIFEST = "model.safetensors", "config.json", "manifest.json"
SCALE = ".scale"  # behind a tensor's name: what its rows are multiplied by


class Stage(NamedTuple):
    """One part of a system's training."""

    name: str
    learns: tuple[str, ...]  # how the names of the parameters begin that learn
    share: float = 1.0  # of the budget's steps
    lr: float = 1e-3
    average: float | None = None  # decay of the weights' moving average, which is then kept


class Pairs:
    """The training pairs, by number."""

    def __init__(self, pictures: np.ndarray, batch: int):
        self.pictures, self.batch = pictures, batch  # uint8 (N, 3, 64, 64); pairs of a step

    def draw(self, generator: torch.Generator) -> list[int]:
        """Numbers of a batch of random pictures."""
        return torch.randint(len(self.pictures), (self.batch,), generator=generator).tolist()

    def pixel_values(self, index: list[int]) -> Tensor:
        """The pictures (B, 3, 64, 64), as CLIP's processor gives them."""
        return signed_pixels(self.pictures[index])

    def captions(self, index: list[int], step: int) -> list[str]:
        """What is said of them in this step."""
        return [training_caption(i, step) for i in index]

    def latents(self, vae, work_dir: Path) -> Tensor:
        """All pictures as the denoiser has them, (N, C, h, w); encoded once by an autoencoder."""
        path = work_dir / f"latents-{weights_sha256(vae)[:16]}.pt"
        return encode_all(vae, self.pictures, path) * vae.config.scaling_factor


class Member(nn.Module):
    """A system: frozen backbones, and what learns in its stages. Subclasses give `loss`."""

    task: str = SEE  # whose budget it has
    stages: tuple[Stage, ...] = ()
    stage: Stage  # that it learns in, see `begin`
    watch: Callable[[], dict] | None = None  # held-out numbers, looked at while it learns

    def __init__(self):
        super().__init__()
        self.pairs: Any = None

    def begin(self, stage: Stage, work_dir: Path) -> None:
        """Before a stage: what it learns from, and which parameters learn."""
        batch = BUDGETS[self.task].batch
        self.stage, self.pairs = stage, self.pairs or Pairs(training_images(work_dir), batch)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(stage.learns))

    def steps(self, stage: Stage) -> int:
        """How many steps a stage takes."""
        return max(1, round(stage.share * BUDGETS[self.task].steps))

    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """The loss of a step of `self.stage`; its randomness comes from `generator`."""
        raise NotImplementedError

    def own_state(self) -> dict[str, Tensor]:
        """What any stage learns, by name: the weights to keep."""
        learns = tuple(name for stage in self.stages for name in stage.learns)
        return {n: p.detach() for n, p in self.named_parameters() if n.startswith(learns)}

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device


def numbers_learned(member: Member) -> int:
    """How many numbers a system learns."""
    return sum(value.numel() for value in member.own_state().values())


def folder_of(name: str, seed: int, root: Path | None = None) -> Path:
    """Where a system's weights lie: in data/family, or another root."""
    return Path(root or shipped("family")) / f"{name}-{seed}"


def command_of(name: str, seed: int) -> str:
    """The command that makes a system's weights."""
    return f"gill-lite family {name} --seed {seed}"


def build(
    name: str, seed: int = 0, root: Path | None = None, backbones: Backbones | None = None
) -> Member:
    """A system, untrained but for what it `needs`, whose weights lie in `root`, or ship.

    Raises GillError for a name that is none, and a system that has no code of its own here.
    """
    system = has_code(name)
    backbones = backbones or load_backbones(MINI)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        member = import_module(system.path).build(backbones, seed, root, **system.options)
    return member.eval().requires_grad_(False)


def train(
    name: str, seed: int = 0, output_dir="runs/family", work_dir="runs/family/work",
    device: str = "auto",
) -> Path:  # fmt: skip
    """Train a system through its stages and keep it in `output_dir`; returns its folder.

    A run that was stopped goes on where it last saved. Raises GillError for an unknown system,
    one that learns nothing, one whose `needs` are not trained yet, and an `output_dir` that holds
    weights of another kind.
    """
    get_system(name)
    manifest_of(Path(output_dir))
    root, work_dir, device = Path(output_dir), Path(work_dir), chosen_device(device)
    stem = f"{name}-{seed}-"
    with only_one(work_dir / stem, beside=True):
        backbones = load_backbones(MINI)
        stands_on = fingerprint(backbones)
        logs = work_dir / stands_on  # what was begun on other backbones does not go on here
        logs.mkdir(parents=True, exist_ok=True)
        member = build(name, seed, root, backbones).to(device)
        for stage in member.stages:
            member.begin(stage, work_dir)
            steps = member.steps(stage)
            fit(stem + stage.name, member, member.loss, logs, steps=steps, lr=stage.lr,
                warmup=max(1, steps // 20), seed=seed, device=device, average=stage.average,
                measure=member.watch, measure_every=WATCH_EVERY)  # fmt: skip
            member.to(device)
        about = made(command_of(name, seed), logs, stem) | {"seed": seed, "device": device}
        about["watched"] = watched(logs, stem)
        about["backbones"] = stands_on
        about["needs"] = needed(name, seed, root)
        about["steps"] = {stage.name: member.steps(stage) for stage in member.stages}
        about["pairs"] = BUDGETS[member.task].batch * sum(about["steps"].values())
        return keep(member.to("cpu"), name, root, about)


def watched(folder: Path, stem: str) -> list[dict]:
    """What was watched: step, seconds and numbers, from the logs of a system's stages."""
    logs = sorted(folder.glob(f"{stem}*.jsonl"))
    rows = [row for log in logs for row in read_rows(log, "training log", "step")]
    return [row for row in rows if "loss" not in row]


def keep(member: Member, name: str, root: Path, about: dict) -> Path:
    """Write a system's weights, packed, its configuration, and its entry in the manifest."""
    from safetensors.torch import save

    folder = folder_of(name, about["seed"], root)
    content, learned = save(packed(member.own_state())), numbers_learned(member)
    digest = hashlib.sha256(content).hexdigest()
    write_bytes(folder / WEIGHTS, content)
    write_json(folder / CONFIG, {"system": name, "learned": learned, "sha256": digest, **about})
    _enter(root, folder, {"learned": learned, **about})
    return folder


def packed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices in 8 bits a number and a scale a row, all else halved: what 40 MB have room for."""
    kept = {}
    for name, value in tensors.items():
        kept[name] = value.half().contiguous()
        if value.dim() > 1:
            rows = value.float().flatten(1)
            scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
            kept[name] = (rows / scale).round().to(torch.int8).view(value.shape)
            kept[name + SCALE] = scale[:, 0].contiguous()
    return kept


def unpacked(kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `packed` kept, as float32."""
    tensors = {}
    for name, value in kept.items():
        if name + SCALE in kept:
            tensors[name] = (value.float().flatten(1) * kept[name + SCALE][:, None]).view_as(value)
        elif not name.endswith(SCALE):
            tensors[name] = value.float()
    return tensors


def manifest_of(root: Path) -> dict:
    """The manifest of a folder of the family, which may be new. GillError for another's."""
    path, empty = root / MANIFEST, {"made_by": "gill-lite family", "systems": {}, "files": {}}
    manifest: dict = read_json(path, "weights manifest") if path.exists() else empty
    if not empty.keys() <= manifest.keys():
        raise GillError(f"{root} holds weights of another kind ({path}); take a folder of its own")
    return manifest


def needed(name: str, seed: int, root: Path | None) -> dict[str, str]:
    """The hashes of the trained weights that a system of this seed begins with, by folder."""
    paths = [folder_of(need, seed, root) / WEIGHTS for need in has_code(name).needs]
    return {path.parent.name: sha256(path) for path in paths}


def _enter(root: Path, folder: Path, about: dict) -> None:
    """A line of its own in the manifest of `root`; other systems' stay as they are."""
    path = root / MANIFEST
    with only_one(path, beside=True, wait=True):
        manifest = manifest_of(root)
        manifest["systems"][folder.name] = about
        for file in (folder / WEIGHTS, folder / CONFIG):
            name = file.relative_to(root).as_posix()
            manifest["files"][name] = {"sha256": sha256(file), "bytes": file.stat().st_size}
        write_json(path, manifest)


def load(
    name: str, seed: int = 0, root: Path | None = None, backbones: Backbones | None = None
) -> Member:
    """A trained system.

    Raises GillError where its weights are missing, damaged or not its own, and where they were
    trained on other backbones, or on other weights of what it `needs`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as read

    backbones = backbones or load_backbones(MINI)
    member = build(name, seed, root, backbones)
    if not has_code(name).trained_here:
        return member
    path, again = folder_of(name, seed, root) / WEIGHTS, f"`{command_of(name, seed)}`"
    if not path.is_file():
        raise GillError(f"{path} is missing; {again} makes it")
    refuse_pointer(path)
    about = read_json(path.with_name(CONFIG), "configuration")
    if about.get("backbones") != fingerprint(backbones):
        raise GillError(f"{path} was trained on other backbones than these; {again} trains it anew")
    if about.get("needs", {}) != (needs := needed(name, seed, root)):
        raise GillError(f"{path} was trained on another {', '.join(needs)}; {again} trains it anew")
    if about.get("sha256") != sha256(path):
        raise GillError(f"{path} is not what its {CONFIG} tells of; restore it, or {again}")
    try:
        tensors = unpacked(read(path.read_bytes()))
        if tensors.keys() != member.own_state().keys():
            raise GillError("it holds other tensors")
        member.load_state_dict(tensors, strict=False)
    except (SafetensorError, RuntimeError, GillError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(":")
        raise GillError(f"{path} does not hold a {name} ({reason}); train it anew") from error
    return member
