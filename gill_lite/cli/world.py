"""`gill-lite pretrain` and `gill-lite export`: the mini world's backbones and evaluation sets."""

from pathlib import Path

from gill_lite.cli.options import add_output, add_seed, command, natural

STAGES = ("clip", "lm", "autoencoder", "denoiser", "trunk", "probes", "glide")


def add_pretrain(subparsers) -> None:
    """The subcommand `pretrain` and its options."""
    text = (
        "Train the mini world's backbones from scratch. Takes hours on two cores; every stage "
        "continues after being stopped."
    )
    parser = command(subparsers, "pretrain", pretrain, text)
    text = "one stage only (default: all, in this order)"
    parser.add_argument("stage", nargs="?", choices=STAGES, default=None, help=text)
    add_seed(parser)
    add_output(parser, "where the weights go", "runs/pretrain/mini")
    parser.add_argument(
        "--work-dir", type=Path, metavar="DIR", default=Path("runs/pretrain/work"),
        help="checkpoints of unfinished stages",
    )  # fmt: skip


def pretrain(arguments) -> None:
    """Train one backbone or all."""
    from gill_lite.pretraining import pretrain as stages

    stages.run(arguments.stage, arguments.output_dir, arguments.work_dir, arguments.seed)


def add_export(subparsers) -> None:
    """The subcommand `export` and its options."""
    text = (
        "Write the mini world's evaluation sets in the official file formats. VIST, VisDial "
        "and captions, with their images; the same seed gives the same bytes."
    )
    parser = command(subparsers, "export", export, text)
    parser.add_argument("directory", type=Path, help="folder to write into")
    for name in ("stories", "dialogues", "captions"):
        text = f"how many {name}"
        parser.add_argument(f"--num-{name}", type=natural, default=300, metavar="N", help=text)
    add_seed(parser)


def export(arguments) -> None:
    """Write the evaluation sets."""
    from gill_lite.world.export import export as write

    sizes = {name: getattr(arguments, name)
             for name in ("num_stories", "num_dialogues", "num_captions")}  # fmt: skip
    write(arguments.directory, **sizes, seed=arguments.seed, progress=True)
    print(f"wrote {arguments.directory}")
