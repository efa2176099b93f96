"""`gill-lite`: one subcommand a thing to do. Heavy imports happen inside the subcommand."""

import argparse
import shlex
import sys
from pathlib import Path

from gill_lite import __version__, commands
from gill_lite.errors import GillError

STAGES = ("clip", "lm", "autoencoder", "denoiser", "trunk", "probes")
MAPPERS = ("gill", "linear", "mlp", "encoder")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, except where there is none to tell."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand. Returns the exit status: 0, 1 (a step failed), 2 (bad input),
    130 (interrupted)."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(argv)
    arguments.typed = shlex.join(["gill-lite", *argv])
    try:
        return arguments.run(arguments) or 0
    except GillError as error:
        print(f"gill-lite: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gill-lite: interrupted; the same command continues where it can.", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="gill-lite",
        description="GILL in miniature: train it, talk to it, reproduce the paper's tables.",
        epilog="Exit status: 0 done, 1 a step failed, 2 bad input, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"gill-lite {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_reproduce,
        _add_train,
        _add_evaluate,
        _add_chat,
        _add_pretrain,
        _add_export,
        _add_doctor,
        _add_later,
    ):
        add(subparsers)
    return parser


# ---- what each subcommand takes ----


def _command(subparsers, name: str, run, text: str) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name,
        help=text[0].lower() + text[1:].split(". ")[0].rstrip("."),
        description=text,
        formatter_class=_Help,
    )
    parser.set_defaults(run=run)
    return parser


def _add_profile(parser) -> None:
    parser.add_argument("--profile", default="mini", help="mini (embedded) or paper")


def _add_table_options(parser) -> None:
    _add_profile(parser)
    parser.add_argument(
        "--seeds",
        type=_numbers,
        default="0,1,2",
        metavar="0,1,2",
        help="seeds of GILL's joints to average over",
    )
    parser.add_argument(
        "--num-stories", type=_positive, default=300, metavar="N", help="stories to score"
    )
    parser.add_argument(
        "--run-seed",
        type=_natural,
        default=0,
        metavar="N",
        help="seed of the image noise; an example's noise depends on it and its id",
    )
    parser.add_argument(
        "-o",
        "--output-dir",
        type=Path,
        metavar="DIR",
        default=None,
        help="run folder; the same one again continues (default: runs/<date>)",
    )


def _add_reproduce(subparsers) -> None:
    text = (
        "Compute the paper's tables and write one report. Runs the table notebooks headless; "
        "the run folder gets notebooks/, results/*.json, figures/ and report.html."
    )
    parser = _command(subparsers, "reproduce", commands.reproduce, text)
    parser.add_argument(
        "--tables", type=_names, default="1", metavar="1,...", help="numbers of the tables"
    )
    _add_table_options(parser)


def _add_evaluate(subparsers) -> None:
    text = "Compute one table. As reproduce does, for the table named."
    parser = _command(subparsers, "evaluate", commands.evaluate, text)
    parser.add_argument("table", help="number of the table, for example 1")
    _add_table_options(parser)


def _add_train(subparsers) -> None:
    text = "Train GILL's joints on single image-caption pairs. The backbones stay frozen."
    parser = _command(subparsers, "train", commands.train, text)
    _add_profile(parser)
    parser.add_argument("--seed", type=_natural, default=0, metavar="N", help="seed of everything")
    parser.add_argument(
        "--steps",
        type=_positive,
        metavar="N",
        default=None,
        help="training steps (default: the profile's)",
    )
    parser.add_argument("--mapper", choices=MAPPERS, default="gill", help="the generation joint")
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


def _add_chat(subparsers) -> None:
    text = (
        "Talk to the model. It answers with text, a retrieved and a generated image. With "
        "messages it answers once; without, it reads lines until an empty one. A message "
        "@FILE is an image."
    )
    parser = _command(subparsers, "chat", commands.chat, text)
    parser.add_argument("message", nargs="*", default=None, help="text, or @picture.png, in order")
    _add_profile(parser)
    parser.add_argument("--seed", type=_natural, default=0, metavar="N", help="which joints")
    parser.add_argument(
        "--joints",
        type=Path,
        metavar="DIR",
        default=None,
        help="joints of `gill-lite train` (default: the shipped ones of --seed)",
    )
    parser.add_argument(
        "-o",
        "--output-dir",
        type=Path,
        metavar="DIR",
        default=Path("runs/chat"),
        help="where the answer's images go",
    )


def _add_pretrain(subparsers) -> None:
    text = (
        "Train the mini world's backbones from scratch. Takes hours on two cores; every stage "
        "continues after being stopped."
    )
    parser = _command(subparsers, "pretrain", commands.pretrain, text)
    parser.add_argument(
        "stage",
        nargs="?",
        choices=STAGES,
        default=None,
        help="one stage only (default: all, in this order)",
    )
    parser.add_argument("--seed", type=_natural, default=0, metavar="N", help="seed of everything")
    parser.add_argument(
        "-o",
        "--output-dir",
        type=Path,
        metavar="DIR",
        default=Path("runs/pretrain/mini"),
        help="where the weights go",
    )
    parser.add_argument(
        "--work-dir",
        type=Path,
        metavar="DIR",
        default=Path("runs/pretrain/work"),
        help="checkpoints of unfinished stages",
    )


def _add_export(subparsers) -> None:
    text = (
        "Write the mini world's evaluation sets in the official file formats. VIST, VisDial "
        "and captions, with their images; the same seed gives the same bytes."
    )
    parser = _command(subparsers, "export", commands.export, text)
    parser.add_argument("directory", type=Path, help="folder to write into")
    for name in ("stories", "dialogues", "captions"):
        parser.add_argument(
            f"--num-{name}", type=_natural, default=300, metavar="N", help=f"how many {name}"
        )
    parser.add_argument("--seed", type=_natural, default=0, metavar="N", help="seed of everything")


def _add_doctor(subparsers) -> None:
    text = "Check this installation. Prints versions, hardware and the state of the weights."
    _add_profile(_command(subparsers, "doctor", commands.doctor, text))


def _add_later(subparsers) -> None:
    for name, text in (
        ("fetch", "Download the paper profile's weights and data."),
        ("convert", "Turn the official checkpoint into gill-lite's format."),
    ):
        parser = _command(
            subparsers, name, commands.not_there_yet, f"{text} Comes in a later release."
        )
        parser.add_argument("arguments", nargs="*", default=None, help="none so far")
        parser.set_defaults(name=name)


# ---- numbers from text ----


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"'{text}' is not a comma-separated list without repeats")
    return names


def _numbers(text: str) -> list[int]:
    return [_natural(name) for name in _names(text)]


if __name__ == "__main__":
    sys.exit(main())
