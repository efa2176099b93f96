"""`gill-lite train` on the command line."""

from pathlib import Path

from gill_lite.cli import commands
from gill_lite.cli.options import add_profile, command, natural, positive, positive_number

MAPPERS = ("gill", "linear", "mlp", "encoder", "none")
PRECISIONS = ("no", "bf16")
QUANTIZE = ("none", "8bit", "4bit")


def add_train(subparsers) -> None:
    """The subcommand and its options."""
    text = (
        "Train GILL's joints on single image-caption pairs. The backbones stay frozen. On "
        "several GPUs: accelerate launch -m gill_lite train ...; see docs/training.md."
    )
    parser = command(subparsers, "train", commands.train, text)
    add_profile(parser)
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of everything")
    parser.add_argument(
        "--mapper",
        choices=MAPPERS,
        default="gill",
        help="the generation joint; none: retrieval only",
    )
    parser.add_argument(
        "--no-resume",
        dest="resume",
        action="store_false",
        help="start anew even where a checkpoint lies in the output folder",
    )
    parser.add_argument(
        "-o",
        "--output-dir",
        type=Path,
        metavar="DIR",
        default=None,
        help="where the joints go (default: runs/train/<mapper>-<seed>)",
    )
    _add_data(parser.add_argument_group("pairs", "the mini profile draws its own"))
    _add_models(parser.add_argument_group("models", "hub ids or folders, not the profile's"))
    _add_recipe(parser.add_argument_group("recipe", "instead of the profile's"))
    _add_scale(parser.add_argument_group("scale"))


def _add_data(group) -> None:
    group.add_argument(
        "--captions",
        type=Path,
        metavar="FILE.tsv",
        default=None,
        help="captions and image names, the official two columns",
    )
    group.add_argument(
        "--images", type=Path, metavar="DIR", default=None, help="folder of these images"
    )
    group.add_argument(
        "--shards",
        metavar="PATTERN",
        default=None,
        help="webdataset shards instead: a folder or 'cc3m/{00000..00331}.tar'",
    )
    group.add_argument(
        "--num-workers",
        type=natural,
        default=0,
        metavar="N",
        help="processes that open pictures, for each training process",
    )


def _add_models(group) -> None:
    group.add_argument("--lm", metavar="ID", default=None, help="a causal language model")
    group.add_argument("--vision", metavar="ID", default=None, help="a CLIP")
    group.add_argument("--diffusion", metavar="ID", default=None, help="a Stable Diffusion")
    group.add_argument(
        "--quantize", choices=QUANTIZE, default="none", help="the language model's weights"
    )


def _add_recipe(group) -> None:
    for name, kind, text in (
        ("learning-rate", positive_number, "of AdamW after the warm-up"),
        ("num-img-tokens", positive, "r, the learned [IMG] tokens"),
        ("num-visual-tokens", positive, "k, the visual tokens of an image"),
    ):
        group.add_argument(f"--{name}", type=kind, metavar="N", default=None, help=text)


def _add_scale(group) -> None:
    group.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        default=None,
        help="training steps (default: the profile's)",
    )
    group.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        default=None,
        help="pairs a step, of all processes together (default: the profile's)",
    )
    group.add_argument(
        "--gradient-accumulation-steps",
        type=positive,
        default=1,
        metavar="N",
        help="micro-batches a step; retrieval still compares the whole batch",
    )
    group.add_argument(
        "--mixed-precision",
        choices=PRECISIONS,
        default=None,
        help="bf16: frozen models and products in bfloat16, joints in float32 "
        "(default: what accelerate launch was told, else no)",
    )
    group.add_argument(
        "--save-every", type=positive, default=200, metavar="N", help="steps between checkpoints"
    )
    group.add_argument(
        "--keep", type=positive, default=2, metavar="N", help="checkpoints to keep, the last ones"
    )
    group.add_argument(
        "--tensorboard", action="store_true", help="write the log for TensorBoard, too"
    )
