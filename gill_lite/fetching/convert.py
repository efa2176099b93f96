"""An official GILL model folder into ours, and back. No language model or CLIP is loaded.

Ours holds `joints.safetensors` and `config.json`, and where the official folder has them
`decision.safetensors` and `index/`. Official: see official.py. Weights keep precision and
bits; so do the embeddings, which get unit length when the index is loaded. Only a classifier
in half precision and embeddings in bfloat16 become float32, with the same values.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from tqdm import tqdm

from gill_lite import __version__
from gill_lite.answering.decision import DECISION, LinearDecision, load_decision
from gill_lite.answering.index import EMBEDDINGS, INDEX, LONG_IDS
from gill_lite.errors import GillError
from gill_lite.files import read_json, sha256, whole_folder, write_json
from gill_lite.model import official
from gill_lite.model.checkpoint import (
    ABOUT,
    CONFIG,
    WEIGHTS,
    read_joints,
    shapes_between,
    write_joints,
)

FORMATS = ("gill-lite", "official")
PROVENANCE = "provenance.json"  # beside the official files, which have no room for it


def convert(
    source, target, to: str = "gill-lite", trust_pickle: bool = False, command: str = ""
) -> Path:
    """Convert the model folder `source` into a new folder `target`; returns it.

    to: "gill-lite" (`source` is official) or "official" (`source` is ours).
    trust_pickle: allow opening `cc3m*.npy` and `.pkl`, which are pickles.
    command: what a person typed; it goes with the sources' sha256 into the provenance.
    Raises GillError, leaving nothing behind, where a file is missing, unsafe or does not fit.
    """
    source, target = Path(source), Path(target).resolve()
    if to not in FORMATS:
        raise GillError(f"to must be one of {', '.join(FORMATS)}, not {to!r}")
    marker = official.ARGS if to == "gill-lite" else CONFIG
    if not (source / marker).is_file():
        raise GillError(
            f"{source / marker} is missing, so this is no folder to convert to {to}; name "
            f"{'an official model' if to == 'gill-lite' else 'a gill-lite model'}'s folder"
        )
    with whole_folder(target) as folder:
        if to == "official":
            write_official(source, folder, command)
        else:
            write_ours(source, folder, trust_pickle, command)
    return target


def write_ours(source: Path, folder: Path, trust_pickle: bool, command: str) -> None:
    """Write what the official folder `source` holds into `folder`, in our format."""
    files = official.embedding_files(source, trust_pickle)
    model = official.read_model(source)
    width, vision_width = official.widths(model.state)
    joints = official.take_joints(model, shapes_between(model.config, width, vision_width))
    decision = load_decision(source)
    if decision and decision.weight.shape[1] != width:
        raise GillError(
            f"{source / official.DECISION} reads states of width {decision.weight.shape[1]}, "
            f"but the model's have {width}; restore the classifier that belongs to it"
        )
    read = [source / official.ARGS, model.source, *files]
    about = {**provenance(source, read, decision, command), "official_args": model.args}
    write_joints(folder, joints, model.config, about)
    if decision:
        decision.save(folder / DECISION)
    if files:
        write_index(files, folder / INDEX, model.config.ret_dim, about)


def write_official(source: Path, folder: Path, command: str) -> None:
    """Write joints and classifier of our folder `source` into `folder`, in the official format.

    The index stays behind: officially embeddings are a Python pickle.
    """
    saved = read_joints(source)
    args = official.official_args(saved.config, known_args(saved.provenance, source))
    state = official.under_official_names(saved.joints, saved.config.mapper)
    model = official.OfficialModel(saved.config, args, state, source / WEIGHTS)
    official.take_joints(model, shapes_between(saved.config, *official.widths(state)))
    write_json(folder / official.ARGS, args, indent=4)
    torch.save({"state_dict": state}, folder / official.WEIGHTS)
    read, decision = [source / CONFIG, source / WEIGHTS], load_decision(source)
    if decision:
        weights = {"1.weight": decision.weight, "1.bias": decision.bias}
        weights = {name: torch.from_numpy(value) for name, value in weights.items()}
        torch.save({"state_dict": weights}, folder / official.DECISION)
    if (source / INDEX).is_dir():
        print(f"{source / INDEX} is left out: officially it is a pickle, which is not written here")
    about = provenance(source, read, decision, command)
    write_json(folder / PROVENANCE, {**about, "earlier": saved.provenance})


def provenance(source: Path, read: list[Path], decision: LinearDecision | None, command: str):
    """What was read, by sha256, and how; the history of `source` where it has one."""
    names = (DECISION, official.DECISION) if decision else ()
    read = read + [source / name for name in names if (source / name).is_file()]
    about = {
        "command": command,
        "gill_lite": __version__,
        "sources": {str(path.relative_to(source)): sha256(path) for path in read},
    }
    if (source / PROVENANCE).is_file():
        about["earlier"] = read_json(source / PROVENANCE, "provenance")
    return about


def known_args(about: dict, source: Path) -> dict:
    """What `model_args.json` must say beside the sizes: the official one's, or our models'."""
    if "official_args" in about:
        return about["official_args"]
    settings = about.get("settings", {})
    if not {"lm", "vision"} <= settings.keys():
        raise GillError(f"{source / CONFIG} does not say which LM and CLIP its joints belong to")
    return {"opt_version": settings["lm"], "visual_encoder": settings["vision"]}


def write_index(files: list[Path], folder: Path, width: int, about: dict) -> None:
    """The embeddings of trusted `files` as one index, a file in memory at a time."""
    folder.mkdir()
    rows, dtype, raw = 0, None, folder / "rows"
    with open(folder / LONG_IDS, "w", encoding="utf-8") as ids, open(raw, "wb") as numbers:
        for path in tqdm(files, desc="embeddings", unit="file", disable=None):
            names, embeddings = official.read_embeddings(path)
            dtype = dtype or embeddings.dtype
            if (embeddings.dtype, embeddings.shape[1]) != (dtype, width):
                raise GillError(
                    f"{path} holds {embeddings.dtype} of width {embeddings.shape[1]}, but the "
                    f"index needs {dtype} of width {width}; restore the file of this model"
                )
            ids.writelines(json.dumps({"id": name}) + "\n" for name in names)
            embeddings.tofile(numbers)
            rows += len(names)
    if not rows:
        raise GillError(f"{files[0]} holds no embedding; restore the file or move it away")
    metadata = {ABOUT: json.dumps({"provenance": about, "unit_length": False}, sort_keys=True)}
    mapped = np.memmap(raw, dtype, "r", shape=(rows, width))
    save_file({"embeddings": mapped}, folder / EMBEDDINGS, metadata)
    del mapped
    raw.unlink()
