"""What each subcommand of the command line does; heavy imports wait until it is called."""

from pathlib import Path

TRAIN_OPTIONS = (
    *("seed", "steps", "mapper", "resume", "captions", "images", "shards", "num_workers"),
    *("lm", "vision", "diffusion", "quantize", "batch_size", "gradient_accumulation_steps"),
    *("mixed_precision", "save_every", "keep", "tensorboard"),
    *("learning_rate", "num_img_tokens", "num_visual_tokens"),
)


def reproduce(arguments) -> int:
    """Compute the tables asked for and write the report."""
    from gill_lite.experiments import reproduce as run

    names = ("profile", "seeds", *run.DEFAULTS, "run_seed", "protocol")
    parameters = {name: getattr(arguments, name) for name in names} | {"joints_dir": ""}
    output_dir, tables = arguments.output_dir or run.default_output_dir(), arguments.tables
    run.choose(tables)
    if arguments.retrain or arguments.shard or arguments.merge:
        from gill_lite.experiments import batch

        run.prepare_folder(arguments.profile, output_dir)
        if arguments.retrain:
            root = batch.retrain(tables, arguments.seeds, output_dir)
            parameters["joints_dir"] = str(root)
        if arguments.shard:
            batch.compute_shard(tables, parameters, output_dir, arguments.shard)
            return 0
        if arguments.merge:
            batch.merge_shards(tables, output_dir.resolve())
    return run.reproduce(tables, parameters, output_dir, arguments.typed)


def evaluate(arguments) -> int:
    """Compute one table, whole or a part of it."""
    from gill_lite.profiles import get_profile

    get_profile(arguments.profile)  # a typing mistake is told before torch is loaded
    from gill_lite.cli.evaluate_command import evaluate as compute
    from gill_lite.experiments import reproduce as run

    return compute(arguments, (arguments.output_dir or run.default_output_dir()).resolve())


def train(arguments) -> None:
    """Train the joints."""
    from gill_lite.profiles import get_profile

    profile = get_profile(arguments.profile)  # a typing mistake is told before torch is loaded
    from gill_lite.cli.train_command import train_command

    sizes = (("r", arguments.num_img_tokens), ("k", arguments.num_visual_tokens))
    parts = [arguments.mapper, *(f"{name}{n}" for name, n in sizes if n), str(arguments.seed)]
    folder = Path("runs/train") / "-".join(parts)
    options = {name: getattr(arguments, name) for name in TRAIN_OPTIONS}
    train_command(profile.name, arguments.output_dir or folder, **options)


def pretrain(arguments) -> None:
    """Train one backbone or all."""
    from gill_lite.pretraining import pretrain as stages

    stages.run(arguments.stage, arguments.output_dir, arguments.work_dir, arguments.seed)


def export(arguments) -> None:
    """Write the evaluation sets."""
    from gill_lite.world.export import export as write

    write(
        arguments.directory,
        num_stories=arguments.num_stories,
        num_dialogues=arguments.num_dialogues,
        num_captions=arguments.num_captions,
        seed=arguments.seed,
        progress=True,
    )
    print(f"wrote {arguments.directory}")


def doctor(arguments) -> None:
    """Check the installation."""
    from gill_lite.cli.doctor import doctor as check

    check(arguments.profile)


def fetch(arguments) -> None:
    """Download the paper profile's weights and data."""
    from gill_lite.fetching.fetch import fetch as bring

    bring(arguments.sources, arguments.data_dir, arguments.dry_run, arguments.sources_file)


def convert(arguments) -> None:
    """Turn an official model folder into ours, or back."""
    from gill_lite.fetching.convert import convert as turn

    folder, made = arguments.directory, arguments.output_dir
    turn(folder, made, arguments.to, arguments.trust_pickle, arguments.typed)
    print(f"wrote {made}")
