"""The parsers of what the paper profile needs: `gill-lite fetch` and `gill-lite convert`."""

from pathlib import Path

from gill_lite.cli import commands
from gill_lite.cli.options import command
from gill_lite.fetching.sources import SOURCES

FORMATS = ("gill-lite", "official")  # those of gill_lite.fetching.convert


def add_fetch(subparsers) -> None:
    """The parser of `fetch`."""
    text = (
        "Download the paper profile's weights and data. Continues where it was cut, checks "
        "sizes, kinds and sha256; models go into the Hugging Face cache, data into --data-dir. "
        "HF_HUB_OFFLINE=1 forbids every download."
    )
    parser = command(subparsers, "fetch", commands.fetch, text)
    parser.add_argument(
        "sources",
        nargs="+",
        choices=list(SOURCES),
        metavar="SOURCE",
        help="one or more of " + ", ".join(SOURCES),
    )
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data/paper"), metavar="DIR", help="where data go"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print sources, sizes and licences, do nothing"
    )
    parser.add_argument(
        "--sources",
        dest="sources_file",
        type=Path,
        default=None,
        metavar="FILE.json",
        help="other URLs, sizes or sha256 for some of them (docs/data.md)",
    )


def add_convert(subparsers) -> None:
    """The parser of `convert`."""
    text = (
        "Turn the official model folder into gill-lite's format, or back. Needs neither the "
        "language model nor CLIP; every number keeps its bits, and the new folder appears whole "
        "or not at all."
    )
    parser = command(subparsers, "convert", commands.convert, text)
    parser.add_argument("directory", type=Path, help="the model folder to convert")
    parser.add_argument(
        "-o", "--output-dir", type=Path, required=True, metavar="DIR", help="the new folder"
    )
    parser.add_argument(
        "--to", choices=FORMATS, default="gill-lite", help="the format of the new folder"
    )
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="open the image embeddings cc3m*.npy: pickles, which can run any code",
    )
