"""Save and load the joints alone, and read the official checkpoint.

Ours: a folder with `joints.safetensors` (weights; sizes and provenance in its metadata) and
`config.json` (the same, readable, and the weights' sha256). Official: see official.py.
"""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from gill_lite.errors import GillError
from gill_lite.files import read_json, refuse_pointer, shipped, write_bytes, write_json
from gill_lite.model import official
from gill_lite.model.backbones import fingerprint
from gill_lite.model.config import GillConfig
from gill_lite.model.gill import Gill

WEIGHTS, CONFIG = "joints.safetensors", "config.json"
ABOUT = "gill_lite"  # the one key of the metadata: with several their order is not fixed

# Ours ---------------------------------------------------------------------------------


def joints_folder(method: str, seed: int, root: Path | None = None) -> Path:
    """Where the joints of a method and seed lie: data/mini/joints, or another root."""
    return Path(root or shipped("mini/joints")) / f"{method}-{seed}"


def save_joints(
    gill: Gill, directory: str | Path, provenance: dict, dtype: torch.dtype | None = None
) -> Path:
    """Write the joints to `directory`, atomically; `dtype` may be torch.float16 to halve them.

    `provenance` says how they were made and must be JSON. Returns the folder.
    """
    joints = {
        name: parameter.detach().to("cpu", dtype).contiguous()
        for name, parameter in gill.trainable_parameters().items()
    }
    return write_joints(directory, joints, gill.config, provenance)


def write_joints(
    directory: str | Path, joints: dict[str, Tensor], config: GillConfig, provenance: dict
) -> Path:
    """Write tensors under our names, with what they are; see `save_joints`."""
    directory = Path(directory)
    about = {"config": config.to_dict(), "provenance": provenance}
    content = save(joints, metadata={ABOUT: json.dumps(about, sort_keys=True)})
    write_bytes(directory / WEIGHTS, content)
    write_json(directory / CONFIG, {**about, "sha256": hashlib.sha256(content).hexdigest()})
    return directory


def load_joints(directory: str | Path, lm: nn.Module, vision: nn.Module) -> Gill:
    """The Gill saved in `directory`, around `lm` and `vision`, in evaluation mode.

    Raises GillError if a file is missing, changed since it was saved, or does not fit.
    """
    saved = read_joints(directory)
    gill = blank_gill(lm, vision, saved.config)
    put_joints(gill, saved.joints, Path(directory) / WEIGHTS)
    return gill.eval()


def joints_for(backbones, directory: str | Path) -> Gill:
    """The Gill saved in `directory`, around `backbones`. Raises GillError as `load_joints` does.

    In the mini world it must also be these backbones that the joints were trained on.
    """
    refuse_other_backbones(read_joints(directory).provenance, backbones, directory)
    return load_joints(directory, backbones.lm, backbones.vision)


def refuse_other_backbones(told: dict, backbones, directory) -> None:
    """Raises GillError where joints of the mini world were trained on other backbones than these.

    There anyone makes backbones anew; others may have the same sizes and mean nothing to the
    joints. told: the provenance of the joints in `directory`.
    """
    trained_on = told.get("settings", {}).get("backbones")
    exact = backbones.profile.name == "mini" and backbones.lm.dtype == torch.float32
    if exact and trained_on not in (None, fingerprint(backbones)):
        raise GillError(
            f"the joints in {directory} were trained on other backbones (of an older world, or "
            "another language model) than these; make new ones with "
            f"`{told.get('command', 'gill-lite train')}`"
        )


class Saved(NamedTuple):
    """What a folder of ours holds."""

    config: GillConfig
    joints: dict[str, Tensor]  # in the precision they were saved in
    provenance: dict


def read_joints(directory: str | Path) -> Saved:
    """Joints and their sizes, not checked against each other; errors as in `load_joints`."""
    directory = Path(directory)
    about = read_json(directory / CONFIG, "the joints' configuration")
    weights = directory / WEIGHTS
    if not weights.is_file():
        raise GillError(f"{weights} does not exist; train a model or restore the file")
    refuse_pointer(weights)
    if hashlib.sha256(weights.read_bytes()).hexdigest() != about.get("sha256"):
        raise GillError(f"{weights} is not the file {CONFIG} was written for; restore both")
    try:
        config = GillConfig(**about["config"])
    except (KeyError, TypeError) as error:
        raise GillError(f"{directory / CONFIG} does not describe a model ({error})") from None
    return Saved(config, read_tensors(weights)[0], about.get("provenance") or {})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors of a safetensors file, and what we wrote about them. GillError if damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return tensors, json.loads((file.metadata() or {}).get(ABOUT, "{}"))
    except (SafetensorError, OSError) as error:
        raise GillError(f"{path} cannot be read as safetensors ({error}); restore it") from None


def blank_gill(lm: nn.Module, vision: nn.Module, config: GillConfig) -> Gill:
    """A Gill on the LM's device whose joints hold no matter what; leaves the random state."""
    with torch.random.fork_rng(devices=[]):
        return Gill(lm, vision, config).to(next(lm.parameters()).device)


@torch.no_grad()
def put_joints(gill: Gill, joints: dict[str, Tensor], source: Path) -> None:
    """Copy `joints` into `gill`; one GillError lists whatever does not fit."""
    if faults := official.misfits(joints, joint_shapes(gill)):
        raise GillError(f"{source} does not fit this model: {'; '.join(faults)}; name others")
    for name, value in gill.trainable_parameters().items():
        value.copy_(joints[name])


def joint_shapes(gill: Gill) -> dict[str, torch.Size]:
    """Name -> shape of each joint."""
    return {name: value.shape for name, value in gill.trainable_parameters().items()}


def shapes_between(config: GillConfig, width: int, vision_width: int) -> dict[str, torch.Size]:
    """Name -> shape of the joints between an LM and a CLIP of these widths; needs neither."""
    with torch.device("meta"):  # shapes without numbers
        lm, vision = nn.Module(), nn.Module()
        table = nn.Embedding(config.img_token_ids[0], width)
        lm.get_input_embeddings = lambda: table
        vision.config = SimpleNamespace(hidden_size=vision_width)
        return joint_shapes(Gill(lm, vision, config))


# The official model -------------------------------------------------------------------


def load_official(directory: str | Path, lm: nn.Module, vision: nn.Module) -> Gill:
    """The Gill of an official model folder, around `lm` and `vision`, in evaluation mode.

    Reads `model_args.json` and `pretrained_ckpt.pth.tar`, whose names begin with `model.` or
    `module.model.`. The embedding holds the [IMG] rows alone, or ends with them; the frozen
    models must not be in the file. The folder's classifier and images: decision.load_decision,
    index.load_index. One GillError lists unknown, missing and wrongly shaped names.
    """
    model = official.read_model(Path(directory))
    gill = blank_gill(lm, vision, model.config)
    put_joints(gill, official.take_joints(model, joint_shapes(gill)), model.source)
    return gill.eval()
