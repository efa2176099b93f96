"""`gill-lite logbook`: a run as a folder of Markdown, beside another run where one is named."""

from pathlib import Path

from gill_lite.cli.options import add_output, command


def add_logbook(subparsers) -> None:
    """The subcommand and its options."""
    text = (
        "Write a run as a folder of Markdown. A page a claim, with its evidence, figures and "
        "command: to publish, or to lay beside another run."
    )
    parser = command(subparsers, "logbook", run, text)
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a run folder, such as runs/x")
    add_output(parser, "the new folder (default: RUN/logbook)")
    text = "another run folder, compared with this one"
    parser.add_argument("--against", type=Path, metavar="RUN", default=None, help=text)


def run(arguments) -> None:
    """Write the logbook."""
    from gill_lite.report.logbook import write

    output = arguments.output_dir or arguments.run_dir / "logbook"
    print(f"wrote {write(arguments.run_dir, output, arguments.against)}")
