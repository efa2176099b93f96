"""`gill-lite`: one subcommand a thing to do. Heavy imports happen inside the subcommand."""

import argparse
import errno
import shlex
import sys

from gill_lite import __version__
from gill_lite.cli import (
    chat,
    convert,
    demo,
    doctor,
    evaluate,
    family,
    fetch,
    index,
    logbook,
    reproduce,
    train,
    world,
)
from gill_lite.errors import GillError
from gill_lite.files import mend_of

NO_ROOM = (  # what a disk, a folder's rights or a name that is taken are to blame for
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG),
)


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
        print(f"gill-lite: {error.strerror}{where}; {mend_of(error)}", file=sys.stderr)
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
        reproduce.add_reproduce, train.add_train, evaluate.add_evaluate, chat.add_chat,
        demo.add_demo, world.add_pretrain, family.add_family, world.add_export,
        doctor.add_doctor, fetch.add_fetch, convert.add_convert, index.add_index,
        logbook.add_logbook,
    ):  # fmt: skip
        add(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
