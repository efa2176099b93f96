"""What the parsers share: help that tells defaults, options of several commands, kinds of values.

An option that two commands take is typed here, once.
"""

import argparse
from pathlib import Path

from gill_lite.errors import GillError

PROTOCOLS = ("corrected", "official")
DTYPES = ("fp32", "bf16", "fp16")
QUANTIZE = ("none", "8bit", "4bit")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, except where there is none to tell."""

    def _get_help_string(self, action):
        told = action.default is not None and action.nargs != 0  # a switch has none
        return super()._get_help_string(action) if told else action.help


def command(subparsers, name: str, run, text: str) -> argparse.ArgumentParser:
    """A subcommand that calls `run(arguments)`; the first sentence of `text` is its help."""
    parser = subparsers.add_parser(
        name,
        help=text[0].lower() + text[1:].split(". ")[0].rstrip("."),
        description=text,
        formatter_class=Help,
    )
    parser.set_defaults(run=run)
    return parser


# ---- options of several commands ----


def add_profile(parser) -> None:
    """The option --profile."""
    parser.add_argument("--profile", default="mini", help="mini (embedded) or paper")


def add_seed(parser, text: str = "seed of everything") -> None:
    """The option --seed."""
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help=text)


def add_output(parser, text: str, default: str | None = None, **more) -> None:
    """The option -o, --output-dir."""
    folder = Path(default) if default else None
    parser.add_argument(
        "-o", "--output-dir", type=place, metavar="DIR", default=folder, help=text, **more
    )


def add_responder(parser) -> None:
    """The options of commands that answer: which models, and where they run."""
    add_joints(parser)
    text = "folder of the pictures of the joints' index (default: where they were indexed)"
    parser.add_argument("--images", type=Path, metavar="DIR", default=None, help=text)
    add_placement(parser)


def add_stages(parser, work_dir: str, text: str) -> None:
    """The options --work-dir and --device of trainings in stages. text: what --work-dir holds."""
    option, default = parser.add_argument, Path(work_dir)
    option("--work-dir", type=place, metavar="DIR", default=default, help=text)
    text, devices = "auto is a GPU where there is one", ("auto", "cpu", "cuda")
    option("--device", choices=devices, default="auto", help=text)


def add_joints(parser) -> None:
    """The options --profile, --seed and --joints."""
    add_profile(parser)
    add_seed(parser, "which joints")
    text = "joints of `gill-lite train` or `convert` (default: the shipped ones of --seed)"
    parser.add_argument("--joints", type=Path, metavar="DIR", default=None, help=text)


def responder_of(arguments):
    """The Responder that the options of `add_responder` ask for."""
    from gill_lite.answering.respond import load_responder

    placement = {name: getattr(arguments, name) for name in ("device", "dtype", "quantize")}
    return load_responder(
        arguments.profile, arguments.seed, arguments.joints, images=arguments.images, **placement
    )


def add_max_skipped(parser) -> None:
    """The option --max-skipped."""
    text = "share of given files that may be unusable, pictures that are gone or damaged"
    parser.add_argument("--max-skipped", type=share, metavar="X", default=0.5, help=text)


def add_models(parser) -> None:
    """The options --lm, --vision and --diffusion."""
    kinds = {"lm": "language model", "vision": "CLIP", "diffusion": "Stable Diffusion"}
    for name, what in kinds.items():
        text = f"hub id or folder of the {what} (default: the profile's)"
        parser.add_argument(f"--{name}", metavar="ID", default=None, help=text)


def add_quantize(parser) -> None:
    """The option --quantize."""
    text = "the language model's weights"
    parser.add_argument("--quantize", choices=QUANTIZE, default="none", help=text)


def add_placement(parser) -> None:
    """The options --device, --dtype and --quantize of commands that answer."""
    text = "cpu, cuda or cuda:N; auto: a GPU where there is one, the CPU for mini"
    parser.add_argument("--device", default="auto", help=text)
    text = "of the models; auto: bf16, for mini fp32"
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help=text)
    add_quantize(parser)


def add_table_options(parser) -> None:
    """What the two commands that compute tables take."""
    add_profile(parser)
    text = "seeds of GILL's joints to average over (default: all that ship)"
    parser.add_argument("--seeds", type=numbers, metavar="0,1,2", default=None, help=text)
    for what in ("stories", "dialogues", "captions"):
        text = f"{what} to score (default: 300 of the mini world, where one caption or round is "
        text += "read 4 times as many; all of given files)"
        parser.add_argument(f"--num-{what}", type=positive, metavar="N", default=None, help=text)
    text = "seed of the image noise; an example's noise depends on it and its id"
    parser.add_argument("--run-seed", type=natural, default=0, metavar="N", help=text)
    text = "the official evaluation's choices or ours; see docs/protocols.md"
    parser.add_argument("--protocol", choices=PROTOCOLS, default="corrected", help=text)
    add_output(parser, "run folder; the same one again continues (default: runs/<date>)")


# ---- kinds of values ----


def place(text: str) -> Path:
    """A folder of this machine."""
    from gill_lite.files import refuse_address

    try:
        refuse_address(text, "the output folder")
    except GillError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)


def natural(text: str) -> int:
    """A whole number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 or more")
    return int(text)


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def positive_number(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def share(text: str) -> float:
    """A share from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share from 0 to 1")
    return value


def names(text: str) -> list[str]:
    """Comma-separated names, each once."""
    found = [name.strip() for name in text.split(",")]
    if not all(found) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"'{text}' is not a comma-separated list without repeats")
    return found


def numbers(text: str) -> list[int]:
    """Comma-separated whole numbers, each once."""
    return [natural(name) for name in names(text)]
