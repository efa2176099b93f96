"""`gill-lite`: one subcommand a thing to do. Heavy imports happen inside the subcommand."""

import argparse
import errno
import shlex
import sys
from pathlib import Path

from gill_lite import __version__
from gill_lite.cli import chat as cli_chat
from gill_lite.cli import commands
from gill_lite.cli import evaluate as cli_tables
from gill_lite.cli import fetch as cli_paper
from gill_lite.cli import train as cli_train
from gill_lite.cli.options import add_profile as _add_profile
from gill_lite.cli.options import command as _command
from gill_lite.cli.options import natural as _natural
from gill_lite.errors import GillError

NO_ROOM = (  # what a disk, a folder's rights or a name that is taken are to blame for
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG),
)
MEND = "free some space or name a folder you may write to, then run the same command again"
MEND_RIGHTS = "you may not read or write it; change its rights or name another"
STAGES = ("clip", "lm", "autoencoder", "denoiser", "trunk", "probes", "glide")


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand. Returns the exit status: 0, 1 (a step failed), 2 (bad input),
    130 (interrupted)."""
    argv = sys.argv[1:] if argv is None else argv
    _print_what_the_terminal_can()
    arguments = build_parser().parse_args(argv)
    arguments.typed = shlex.join(["gill-lite", *argv])
    try:
        return arguments.run(arguments) or 0
    except GillError as error:
        print(f"gill-lite: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        where = f" ({error.filename})" if error.filename else ""
        mend = MEND_RIGHTS if error.errno in (errno.EACCES, errno.EPERM) else MEND
        print(f"gill-lite: {error.strerror}{where}; {mend}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gill-lite: interrupted; the same command continues where it can.", file=sys.stderr)
        return 130


def _print_what_the_terminal_can() -> None:
    """A sign that the terminal's encoding lacks becomes "?", and nothing stops for it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


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
        cli_tables.add_reproduce,
        cli_train.add_train,
        cli_tables.add_evaluate,
        cli_chat.add_chat,
        _add_pretrain,
        _add_export,
        _add_doctor,
        cli_paper.add_fetch,
        cli_paper.add_convert,
    ):
        add(subparsers)
    return parser


# ---- what each subcommand takes ----


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


if __name__ == "__main__":
    sys.exit(main())
