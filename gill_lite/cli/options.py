"""What the parsers of the command line share: help that tells defaults, numbers from text."""

import argparse


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, except where there is none to tell."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


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


def add_profile(parser) -> None:
    """The option --profile."""
    parser.add_argument("--profile", default="mini", help="mini (embedded) or paper")


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


def names(text: str) -> list[str]:
    """Comma-separated names, each once."""
    found = [name.strip() for name in text.split(",")]
    if not all(found) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"'{text}' is not a comma-separated list without repeats")
    return found


def numbers(text: str) -> list[int]:
    """Comma-separated whole numbers, each once."""
    return [natural(name) for name in names(text)]


def add_placement(parser) -> None:
    """The options --device, --dtype and --quantize of commands that answer."""
    for name, choices, text in (
        ("device", None, "cpu, cuda or cuda:N; auto: a GPU where there is one, the CPU for mini"),
        ("dtype", ("auto", "fp32", "bf16", "fp16"), "of the models; auto: bf16, for mini fp32"),
        ("quantize", ("none", "8bit", "4bit"), "the language model's weights"),
    ):
        default = choices[0] if choices else "auto"
        parser.add_argument(f"--{name}", choices=choices, default=default, help=text)
