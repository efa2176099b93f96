"""`gill-lite train`: which pairs, which backbones, which device; then training.train.

Several processes: `accelerate launch -m gill_lite train ...`; docs/training.md.
"""

import atexit
import os
from pathlib import Path

from gill_lite.cli.options import (
    add_max_skipped,
    add_models,
    add_output,
    add_profile,
    add_quantize,
    add_seed,
    command,
    natural,
    positive,
    positive_number,
)
from gill_lite.errors import GillError
from gill_lite.profiles import get_profile

MAPPERS = ("gill", "linear", "mlp", "encoder", "none")
PRECISIONS = ("no", "bf16")
VAL_EVERY = 500  # steps, where there are held-out pairs
RECIPE = ("batch_size", "learning_rate", "num_img_tokens", "num_visual_tokens")  # of the profile
MODELS = ("lm", "vision", "diffusion", "quantize")
LOOP = (  # options of training.train
    *("steps", "mapper", "joints", "resume", "gradient_accumulation_steps"),
    *("save_every", "keep", "tensorboard", "num_workers"),
)
OTHER_LAUNCHERS = ("FSDP", "DEEPSPEED", "MEGATRON_LM")


# ---- options ----


def add_train(subparsers) -> None:
    """The subcommand and its options."""
    text = (
        "Train GILL's joints on single image-caption pairs. The backbones stay frozen. On "
        "several GPUs: accelerate launch -m gill_lite train ...; see docs/training.md."
    )
    parser = command(subparsers, "train", run, text)
    add_profile(parser)
    add_seed(parser)
    text = "the generation joint; none: retrieval only (default: gill, or that of --joints)"
    parser.add_argument("--mapper", choices=MAPPERS, default=None, help=text)
    text = "begin with these joints, of `gill-lite train` or `convert`, and with their sizes"
    parser.add_argument("--joints", type=Path, metavar="DIR", default=None, help=text)
    text = "start anew even where a checkpoint lies in the output folder"
    parser.add_argument("--no-resume", dest="resume", action="store_false", help=text)
    add_output(parser, "where the joints go (default: runs/train/<mapper>-<seed>)")
    _add_data(parser.add_argument_group("pairs", "the mini profile draws its own"))
    models = parser.add_argument_group("models", "hub ids or folders, not the profile's")
    add_models(models)
    add_quantize(models)
    _add_recipe(parser.add_argument_group("recipe", "instead of the profile's"))
    _add_scale(parser.add_argument_group("scale"))


def _add_data(group) -> None:
    option = group.add_argument
    text = "captions and image names, the official two columns"
    option("--captions", type=Path, metavar="FILE.tsv", default=None, help=text)
    option("--images", type=Path, metavar="DIR", default=None, help="folder of these images")
    text = "webdataset shards instead: a folder or 'cc3m/{00000..00331}.tar'"
    option("--shards", metavar="PATTERN", default=None, help=text)
    text = "held-out pairs, in the same two forms: losses, retrieval and captions are looked at"
    option("--val-captions", type=Path, metavar="FILE.tsv", default=None, help=text)
    text = "folder of the held-out images"
    option("--val-images", type=Path, metavar="DIR", default=None, help=text)
    add_max_skipped(group)
    option("--val-shards", metavar="PATTERN", default=None, help="held-out webdataset shards")
    text = "steps between looks at held-out pairs (default: 500 where there are some)"
    option("--val-every", type=positive, metavar="N", default=None, help=text)
    text = "processes that open pictures, for each training process"
    option("--num-workers", type=natural, default=0, metavar="N", help=text)


def _add_recipe(group) -> None:
    for name, kind, text in (
        ("batch-size", positive, "pairs a step, of all processes together"),
        ("learning-rate", positive_number, "of AdamW after the warm-up"),
        ("num-img-tokens", positive, "r, the learned [IMG] tokens"),
        ("num-visual-tokens", positive, "k, the visual tokens of an image"),
    ):
        group.add_argument(f"--{name}", type=kind, metavar="N", default=None, help=text)


def _add_scale(group) -> None:
    option = group.add_argument
    text = "training steps (default: the profile's)"
    option("--steps", type=positive, metavar="N", default=None, help=text)
    text = "micro-batches a step; retrieval still compares the whole batch"
    option("--gradient-accumulation-steps", type=positive, default=1, metavar="N", help=text)
    text = (
        "bf16: frozen models and products in bfloat16, joints in float32 "
        "(default: what accelerate launch was told, else no)"
    )
    option("--mixed-precision", choices=PRECISIONS, default=None, help=text)
    text = "steps between checkpoints"
    option("--save-every", type=positive, default=200, metavar="N", help=text)
    text = "checkpoints to keep, the last ones"
    option("--keep", type=positive, default=2, metavar="N", help=text)
    option("--tensorboard", action="store_true", help="write the log for TensorBoard, too")


# ---- what is run ----


def run(arguments) -> None:
    """Train the joints and write them to the output folder.

    Raises GillError for options that do not fit together, before anything is loaded.
    """
    profile = get_profile(arguments.profile)
    _check_data(profile, arguments)
    precision = _precision(arguments.mixed_precision)
    from gill_lite.training.processes import join_group
    from gill_lite.training.train import train

    recipe = _given(arguments, RECIPE) | _sizes(arguments)
    arguments.mapper = recipe.pop("mapper", arguments.mapper or "gill")
    group = join_group(_on_cpu(profile))
    atexit.register(group.destroy_process_group)
    with group.local_main_process_first():  # the others read what it keeps
        pairs, held = (_given_pairs(arguments, kind) for kind in ("", "val_"))
    for given in filter(None, (pairs, held)):
        group.print(given.summary())
    backbones = _backbones(arguments, profile.replace(**recipe), group.device, precision)
    output_dir = arguments.output_dir or _folder(arguments)
    pairs, features = (pairs, None) if pairs is not None else _world(backbones, output_dir, group)
    options = {name: getattr(arguments, name) for name in LOOP}
    options |= {"mixed_precision": precision, "image_features": features}
    options["provenance"] = _provenance(arguments, pairs)
    options["validation"] = _validation(arguments, backbones, held)
    train(backbones.profile, backbones, pairs, output_dir, arguments.seed, **options)
    if hasattr(pairs, "damage") and pairs.damage():
        print(pairs.damage())  # each process tells of its own pictures
    group.print(f"the joints are in {output_dir}")


def _check_data(profile, arguments) -> None:
    for kind in ("", "val_"):
        captions, images, shards = (
            getattr(arguments, f"{kind}{name}") for name in ("captions", "images", "shards")
        )
        option = f"--{kind.replace('_', '-')}"
        if (captions is None) != (images is None):
            raise GillError(
                f"{option}captions FILE.tsv and {option}images DIR belong together; give both"
            )
        if captions is not None and shards is not None:
            raise GillError(
                f"give either {option}captions and {option}images or {option}shards, not both"
            )
    held = arguments.val_captions or arguments.val_shards
    if arguments.val_every and not held and profile.name != "mini":
        raise GillError(
            "--val-every needs held-out pairs: give --val-captions FILE.tsv --val-images DIR, or "
            "--val-shards"
        )
    if profile.name != "mini" and arguments.captions is None and arguments.shards is None:
        raise GillError(
            f"--profile {profile.name} trains on real pairs: give --captions FILE.tsv --images "
            "DIR, or --shards 'cc3m/{00000..00331}.tar'"
        )


def _precision(asked: str | None) -> str:
    """The precision asked for, else what `accelerate launch` was told."""
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


def _given(arguments, names) -> dict:
    """Those of the options `names` that were given."""
    found = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in found.items() if value not in (None, "none")}


def _sizes(arguments) -> dict:
    """The mapper and the sizes of --joints. Raises GillError where an option asks for others."""
    if arguments.joints is None:
        return {}
    from gill_lite.model.checkpoint import read_joints

    config = read_joints(arguments.joints).config
    names = ("num_img_tokens", "num_visual_tokens", "ret_dim")
    sizes = {"mapper": config.mapper, **{name: getattr(config, name) for name in names}}
    for name, value in sizes.items():
        asked = getattr(arguments, name, None)
        if asked not in (None, value):
            raise GillError(
                f"--{name.replace('_', '-')} {asked} does not fit the joints in "
                f"{arguments.joints}, which have {value}; leave it out"
            )
    return sizes


def _folder(arguments) -> Path:
    """runs/train/<mapper>-<seed>; what is not the profile's has a folder of its own."""
    sizes = (("r", arguments.num_img_tokens), ("k", arguments.num_visual_tokens))
    parts = [arguments.mapper, *(f"{name}{n}" for name, n in sizes if n), str(arguments.seed)]
    return Path("runs/train") / "-".join(parts)


def _given_pairs(arguments, kind: str):
    """The pairs in the files named, None where none are: then the mini world's are taken."""
    named = (getattr(arguments, f"{kind}{name}") for name in ("captions", "images", "shards"))
    captions, images, shards = named
    if captions is not None:
        from gill_lite.datasets.captions import pairs_dataset

        return pairs_dataset(captions, images, max_skipped=arguments.max_skipped)
    if shards is not None:
        from gill_lite.datasets.shards import read_shards

        return read_shards(shards, max_skipped=arguments.max_skipped)
    return None


def _validation(arguments, backbones, held):
    """What looks at held-out pairs, None where none are named and no steps are."""
    if held is None and arguments.val_every is None:
        return None
    from gill_lite.training.validation import Validation, held_out_pairs

    features = None
    if held is None:
        held, features = held_out_pairs(backbones)
    every = arguments.val_every or VAL_EVERY
    return Validation(backbones.profile, backbones, held, every, features)


def _world(backbones, output_dir: Path, group):
    """The mini world's pairs and their image features, kept beside the joints' folder."""
    from gill_lite.training.data import world_pairs

    with group.local_main_process_first():
        return world_pairs(backbones, output_dir.parent)


def _backbones(arguments, profile, device, precision: str):
    """The frozen models; of the generator training needs the text encoder alone."""
    from gill_lite.model.backbones import load_backbones

    dtype = "bf16" if precision == "bf16" else None
    backbones = load_backbones(profile, device, dtype, **_given(arguments, MODELS))
    for module in (backbones.pipeline.unet, backbones.pipeline.vae):
        module.to("cpu")
    return backbones


def _provenance(arguments, pairs) -> dict:
    """How the joints were made, to be kept with them."""
    named = {"mapper": arguments.mapper, "seed": arguments.seed}
    named |= _given(arguments, (*RECIPE, *MODELS, "joints"))
    if arguments.profile != "mini":
        named["profile"] = arguments.profile
    options = [f"--{name.replace('_', '-')} {value}" for name, value in named.items()]
    about = {"command": " ".join(["gill-lite train", *options])}
    if hasattr(pairs, "about"):
        about["data"] = pairs.about()
    return about
