"""`gill-lite pretrain` and `gill-lite export`: the mini world's backbones and evaluation sets."""

from gill_lite.cli.options import add_output, add_seed, add_stages, command, natural, place

SPLITS = ("seen", "novel", "any")
SIZES = ("64x2", "128x4", "256x6")
STAGES = ("clip", "autoencoder", "denoiser", "lm", "glide", "trunk", "probes")


def add_pretrain(subparsers) -> None:
    """The subcommand `pretrain` and its options."""
    text = (
        "Train the mini world's backbones from scratch. Takes hours on two cores, two stages side "
        "by side; every stage continues after being stopped."
    )
    parser = command(subparsers, "pretrain", pretrain, text)
    text = "one stage only (default: all)"
    parser.add_argument("stage", nargs="?", choices=STAGES, default=None, help=text)
    add_seed(parser)
    add_output(parser, "where the weights go", "runs/pretrain/mini")
    add_stages(parser, "runs/pretrain/work", "checkpoints of unfinished stages")
    text = "of the language model (default: 256x6)"
    parser.add_argument("--size", choices=SIZES, default=None, help=text)


def pretrain(arguments) -> None:
    """Train one backbone or all."""
    from gill_lite.pretraining import pretrain as stages

    names = ("stage", "output_dir", "work_dir", "seed", "device", "size")
    stages.run(command=_command(arguments), **{name: getattr(arguments, name) for name in names})


def _command(arguments) -> str:
    """What makes these weights anew, for their manifest: without the folders of one machine."""
    named = {"seed": arguments.seed, "size": arguments.size}
    options = [f"--{name} {value}" for name, value in named.items() if value]
    return " ".join(
        ["gill-lite pretrain", *([arguments.stage] if arguments.stage else []), *options]
    )


def add_export(subparsers) -> None:
    """The subcommand `export` and its options."""
    text = (
        "Write the mini world's evaluation sets in the official file formats. VIST, VisDial "
        "and captions, with their images; the same seed gives the same bytes."
    )
    parser = command(subparsers, "export", export, text)
    parser.add_argument("directory", type=place, help="folder to write into")
    for name in ("stories", "dialogues", "captions"):
        text = f"how many {name}"
        parser.add_argument(f"--num-{name}", type=natural, default=300, metavar="N", help=text)
    add_seed(parser)
    text = "of scenes; novel: what is to be drawn was in no training picture"
    parser.add_argument("--split", choices=SPLITS, default="seen", help=text)


def export(arguments) -> None:
    """Write the evaluation sets."""
    from gill_lite.world.export import export as write

    names = ("num_stories", "num_dialogues", "num_captions", "seed", "split")
    options = {name: getattr(arguments, name) for name in names}
    write(arguments.directory, **options, progress=True)
    print(f"wrote {arguments.directory}")
