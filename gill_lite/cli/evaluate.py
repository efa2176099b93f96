"""The parsers of `gill-lite reproduce` and `gill-lite evaluate`."""

from pathlib import Path

from gill_lite.cli import commands
from gill_lite.cli.options import add_profile, command, names, natural, numbers, positive

PROTOCOLS = ("corrected", "official")
DTYPES = ("fp32", "fp16", "bf16")


def add_reproduce(subparsers) -> None:
    """The parser of `reproduce`."""
    text = (
        "Compute the paper's tables and write one report. Runs the table notebooks headless; "
        "the run folder gets notebooks/, results/*.json, figures/ and report.html."
    )
    parser = command(subparsers, "reproduce", commands.reproduce, text)
    option = parser.add_argument
    option(
        "--tables", type=names, default="all", metavar="1,mappers,...",
        help="which: 1, 2, mappers, context, tokens, retrieval, decide, or all (default)",
    )  # fmt: skip
    _add_table_options(parser)
    for what in ("captions", "prompts"):
        option(
            f"--num-{what}", type=positive, metavar="N", default=None,
            help=f"{what} to score, of the table that has them (default: "
            f"{'300' if what == 'captions' else '900'})",
        )  # fmt: skip
    option(
        "--retrain", action="store_true",
        help="train the joints of these tables anew, into the run folder (hours)",
    )  # fmt: skip
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument(
        "--shard", metavar="i/n", default=None, help="draw and score part i of n; docs/batch.md"
    )
    parts.add_argument(
        "--merge", action="store_true", help="put the parts together first, then as usual"
    )


def add_evaluate(subparsers) -> None:
    """The parser of `evaluate`."""
    text = (
        "Compute one table, without its notebook. Writes results/*.json into the run folder. "
        "`accelerate launch -m gill_lite evaluate ...` shares the work over processes; by hand, "
        "start it with --shard 1/n to --shard n/n and then with --merge. In the paper profile "
        "name the official files and the joints."
    )
    parser = command(subparsers, "evaluate", commands.evaluate, text)
    parser.add_argument("table", help="number of the table, for example 1")
    _add_table_options(parser)
    _add_parts(parser)
    _add_data(parser)
    _add_models(parser)


def _add_table_options(parser) -> None:
    add_profile(parser)
    option = parser.add_argument
    option(
        "--seeds",
        type=numbers,
        metavar="0,1,2",
        default=None,
        help="seeds of GILL's joints to average over (default: 0,1,2)",
    )
    for what in ("stories", "dialogues"):
        option(
            f"--num-{what}",
            type=positive,
            metavar="N",
            default=None,
            help=f"{what} to score (default: 300 of the mini world, all of given files)",
        )
    option(
        "--run-seed",
        type=natural,
        default=0,
        metavar="N",
        help="seed of the image noise; an example's noise depends on it and its id",
    )
    option(
        "--protocol",
        choices=PROTOCOLS,
        default="corrected",
        help="the official evaluation's choices or ours; see docs/protocols.md",
    )
    option(
        "-o",
        "--output-dir",
        type=Path,
        metavar="DIR",
        default=None,
        help="run folder; the same one again continues (default: runs/<date>)",
    )


def _add_parts(parser) -> None:
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--shard", metavar="i/n", default=None, help="compute part i of n only")
    parts.add_argument(
        "--merge", action="store_true", help="put the parts in the run folder together"
    )
    option = parser.add_argument
    option("--batch-size", type=positive, default=16, metavar="N", help="pictures drawn together")
    option(
        "--cache",
        type=Path,
        metavar="DIR",
        default=None,
        help="where drawn pictures are kept for all tables (default: runs/cache)",
    )


def _add_data(parser) -> None:
    for name, file, what in (
        ("vist", "json", "stories"),
        ("visdial", "json", "dialogues"),
        ("captions", "tsv", "captions"),
    ):
        parser.add_argument(
            f"--{name}-{file}",
            type=Path,
            metavar="FILE",
            default=None,
            help=f"official file of {what}, for its table",
        )
        parser.add_argument(
            f"--{name}-images",
            type=Path,
            metavar="DIR",
            default=None,
            help=f"folder of the pictures of the {what}",
        )
    parser.add_argument(
        "--num-captions",
        type=positive,
        metavar="N",
        default=None,
        help="captions to score (default: 300 of the mini world, all of a given file)",
    )


def _add_models(parser) -> None:
    option = parser.add_argument
    option(
        "--joints",
        type=Path,
        nargs="+",
        metavar="DIR",
        default=None,
        help="folders of `gill-lite train` or `gill-lite convert`, one a seed "
        "(default: the shipped ones)",
    )
    for name, what in (
        ("lm", "language model"),
        ("vision", "CLIP"),
        ("diffusion", "Stable Diffusion"),
    ):
        option(
            f"--{name}",
            metavar="ID",
            default=None,
            help=f"hub id or folder of the {what} (default: the profile's)",
        )
    option(
        "--num-inference-steps",
        type=positive,
        metavar="N",
        default=None,
        help="denoising steps a picture (default: the profile's)",
    )
    option(
        "--dtype", choices=DTYPES, default=None, help="of the models (default: fp32, on a GPU fp16)"
    )
    option(
        "--metrics",
        type=names,
        metavar="NAME,...",
        default=None,
        help="of clip_similarity, lpips, attribute_accuracy (default: all there are)",
    )
