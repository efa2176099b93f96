"""`gill-lite family`: train one system of the family."""

from gill_lite.cli.options import add_output, add_seed, add_stages, command
from gill_lite.family import SYSTEMS


def add_family(subparsers) -> None:
    """The subcommand and its options."""
    text = (
        "Train one system of GILL's family in the mini world. All of a task have one budget; a "
        "run that was stopped goes on."
    )
    parser = command(subparsers, "family", run, text)
    names = [system.name for system in SYSTEMS.values() if system.trained_here]
    parser.add_argument("system", metavar="NAME", help=f"one of {', '.join(names)}")
    add_seed(parser)
    add_output(parser, "where the weights go", "runs/family")
    text = "checkpoints of unfinished stages, and the training pictures"
    add_stages(parser, "runs/family/work", text)


def run(arguments) -> None:
    """Train the system and say where it is."""
    from gill_lite.family.system import train

    names = ("seed", "output_dir", "work_dir", "device")
    options = {name: getattr(arguments, name) for name in names}
    print(f"wrote {train(arguments.system, **options)}")
