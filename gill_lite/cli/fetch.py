"""`gill-lite fetch`: the paper profile's weights and data."""

from pathlib import Path

from gill_lite.cli.options import command, place
from gill_lite.fetching.sources import SOURCES


def add_fetch(subparsers) -> None:
    """The subcommand and its options."""
    text = (
        "Download the paper profile's weights and data. Brings what is missing, checks sizes, "
        "kinds and sha256; models go into the Hugging Face cache, data into --data-dir. "
        "HF_HUB_OFFLINE=1 forbids every download."
    )
    parser = command(subparsers, "fetch", run, text)
    option = parser.add_argument
    text = "one or more of " + ", ".join(SOURCES)
    option("sources", nargs="+", choices=list(SOURCES), metavar="SOURCE", help=text)
    text = "where data go"
    option("--data-dir", type=place, default=Path("data/paper"), metavar="DIR", help=text)
    option("--dry-run", action="store_true", help="print sources, sizes and licences, do nothing")
    option(
        "--sources", dest="sources_file", type=Path, default=None, metavar="FILE.json",
        help="other URLs, sizes or sha256 for some of them (docs/data.md)",
    )  # fmt: skip


def run(arguments) -> None:
    """Download the paper profile's weights and data."""
    from gill_lite.fetching.fetch import fetch

    fetch(arguments.sources, arguments.data_dir, arguments.dry_run, arguments.sources_file)
