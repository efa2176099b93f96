"""`gill-lite reproduce`: the table notebooks, run headless, and their report."""

from gill_lite.cli.options import add_table_options, command, names, positive


def add_reproduce(subparsers) -> None:
    """The subcommand and its options."""
    text = (
        "Compute the paper's tables and write one report. Runs the table notebooks headless; "
        "the run folder gets notebooks/, results/*.json, figures/ and report.html."
    )
    parser = command(subparsers, "reproduce", run, text)
    text = (
        "of 1, 2, mappers, context, tokens, ladder, retrieval, decide; all of these unless named; "
        "family, or see, draw, edit, teach, for the systems around GILL"
    )
    parser.add_argument("--tables", type=names, default="all", metavar="1,mappers,...", help=text)
    add_table_options(parser)
    text = "prompts to score, of the table that has them (default: 900)"
    parser.add_argument("--num-prompts", type=positive, metavar="N", default=None, help=text)
    for what in ("scenes", "chains"):
        text = f"{what} to take, of the family's tables (default: the table's)"
        parser.add_argument(f"--num-{what}", type=positive, metavar="N", default=None, help=text)
    text = "train the joints of these tables anew, into the run folder (hours)"
    parser.add_argument("--retrain", action="store_true", help=text)


def run(arguments) -> int:
    """Compute the tables asked for and write the report."""
    from gill_lite.evaluation.tables import TABLES, choose
    from gill_lite.experiments import reproduce

    chosen = choose(arguments.tables)
    sizes = {size for table in TABLES.values() for size in table.sizes}
    names = ("profile", "seeds", "run_seed", "protocol", *sizes)
    parameters = {name: getattr(arguments, name) for name in names} | {"joints_dir": ""}
    output_dir = arguments.output_dir or reproduce.default_output_dir()
    if arguments.retrain:
        reproduce.prepare_folder(arguments.profile, output_dir)
        root = reproduce.retrain(chosen, arguments.seeds, output_dir)
        parameters["joints_dir"] = str(root)
    return reproduce.reproduce(chosen, parameters, output_dir, arguments.typed)
