"""What `gill-lite train` does: which pairs, which backbones, which device; then train.train.

Several processes: `accelerate launch -m gill_lite train ...`; docs/training.md.
"""

import atexit
import os
from pathlib import Path

from gill_lite.errors import GillError

OTHER_LAUNCHERS = ("FSDP", "DEEPSPEED", "MEGATRON_LM")


def train_command(
    profile_name: str,
    output_dir: str | Path,
    *,
    seed: int = 0,
    mapper: str = "gill",
    captions=None,
    images=None,
    shards=None,
    lm: str | None = None,
    vision: str | None = None,
    diffusion: str | None = None,
    quantize: str = "none",
    batch_size: int | None = None,
    learning_rate: float | None = None,
    num_img_tokens: int | None = None,
    num_visual_tokens: int | None = None,
    mixed_precision: str | None = None,
    **options,
):
    """Train the joints of a profile and write them to `output_dir`; returns the Gill.

    captions, images: an official TSV and its folder; shards: webdataset tar files, a folder or
    a pattern. Without them the mini profile trains on its own world. lm, vision, diffusion,
    batch_size, learning_rate, num_img_tokens, num_visual_tokens: instead of the profile's.
    mixed_precision: "no" or "bf16", by default what `accelerate launch` was told. options: see
    train.train. Raises GillError for what does not fit together.
    """
    from accelerate import PartialState

    from gill_lite.model.backbones import load_backbones
    from gill_lite.profiles import get_profile
    from gill_lite.training.data import world_pairs
    from gill_lite.training.train import train

    profile = get_profile(profile_name)
    _check_data(profile, captions, images, shards)
    precision = _precision(mixed_precision)
    recipe = {"batch_size": batch_size, "learning_rate": learning_rate}
    recipe |= {"num_img_tokens": num_img_tokens, "num_visual_tokens": num_visual_tokens}
    recipe = {name: value for name, value in recipe.items() if value is not None}
    profile = profile.replace(**recipe)
    group = PartialState(cpu=_on_cpu(profile))
    atexit.register(group.destroy_process_group)
    with group.local_main_process_first():  # the others read what it keeps
        pairs = _given_pairs(captions, images, shards)  # before the models: told in seconds
    dtype = "bf16" if precision == "bf16" else None
    models: dict = {"lm": lm, "vision": vision, "diffusion": diffusion, "quantize": quantize}
    backbones = load_backbones(profile, group.device, dtype, **models)
    _spare_memory(backbones.pipeline)
    features = None
    if pairs is None:
        with group.local_main_process_first():
            pairs, features = world_pairs(backbones, Path(output_dir).parent)
    options |= {"mapper": mapper, "mixed_precision": precision, "image_features": features}
    named = {"mapper": mapper, "seed": seed, **recipe}
    named |= {name: value for name, value in models.items() if value not in (None, "none")}
    options["provenance"] = _provenance(profile, named, pairs)
    gill = train(backbones.profile, backbones, pairs, output_dir, seed, **options)
    if hasattr(pairs, "damage") and pairs.damage():
        print(pairs.damage())  # each process tells of its own pictures
    group.print(f"the joints are in {output_dir}")
    return gill


def _check_data(profile, captions, images, shards) -> None:
    if (captions is None) != (images is None):
        raise GillError("--captions FILE.tsv and --images DIR belong together; give both")
    if captions is not None and shards is not None:
        raise GillError("give either --captions and --images or --shards, not both")
    if profile.name != "mini" and captions is None and shards is None:
        raise GillError(
            f"--profile {profile.name} trains on real pairs: give --captions FILE.tsv --images "
            "DIR, or --shards 'cc3m/{00000..00331}.tar'"
        )


def _precision(asked: str | None) -> str:
    """The precision asked for, else what `accelerate launch` was told."""
    from gill_lite.training.step import PRECISIONS

    precision = asked or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in PRECISIONS:
        raise GillError(f"mixed precision must be no or bf16, not {precision}")
    return precision


def _on_cpu(profile) -> bool:
    """The mini profile trains on the CPU; others where there is no GPU, or none is wanted."""
    import torch

    for name in OTHER_LAUNCHERS:
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise GillError(
                f"accelerate was told to use {name}, which GILL's few learned weights do not "
                "need; launch again with plain data parallelism (--multi_gpu)"
            )
    unwanted = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1")
    return profile.name == "mini" or unwanted or not torch.cuda.is_available()


def _spare_memory(pipeline) -> None:
    """Of the generator training needs the text encoder alone."""
    for module in (pipeline.unet, pipeline.vae):
        module.to("cpu")


def _given_pairs(captions, images, shards):
    """The pairs in the files named, None where none are: then the mini world's are taken."""
    if captions is not None:
        from gill_lite.datasets.captions import pairs_dataset

        return pairs_dataset(captions, images)
    if shards is not None:
        from gill_lite.datasets.shards import read_shards

        return read_shards(shards)
    return None


def _provenance(profile, named: dict, pairs) -> dict:
    """How the joints were made, to be kept with them. named: options as typed."""
    if profile.name != "mini":
        named["profile"] = profile.name
    options = [f"--{name.replace('_', '-')} {value}" for name, value in named.items()]
    about = {"command": " ".join(["gill-lite train", *options])}
    if hasattr(pairs, "about"):
        about["data"] = pairs.about()
    return about
