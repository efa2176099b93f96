"""`gill-lite convert`: an official model folder into ours, and back."""

from pathlib import Path

from gill_lite.cli.options import add_output, command

FORMATS = ("gill-lite", "official")  # those of gill_lite.fetching.convert


def add_convert(subparsers) -> None:
    """The subcommand and its options."""
    text = (
        "Turn the official model folder into gill-lite's format, or back. Needs neither the "
        "language model nor CLIP; every number keeps its bits, and the new folder appears whole "
        "or not at all."
    )
    parser = command(subparsers, "convert", run, text)
    parser.add_argument("directory", type=Path, help="the model folder to convert")
    add_output(parser, "the new folder", required=True)
    text = "the format of the new folder"
    parser.add_argument("--to", choices=FORMATS, default="gill-lite", help=text)
    text = "open the image embeddings cc3m*.npy or .pkl: pickles, which can run any code"
    parser.add_argument("--trust-pickle", action="store_true", help=text)


def run(arguments) -> None:
    """Turn an official model folder into ours, or back."""
    from gill_lite.fetching.convert import convert

    folder, made = arguments.directory, arguments.output_dir
    convert(folder, made, arguments.to, arguments.trust_pickle, arguments.typed)
    print(f"wrote {made}")
