"""`gill-lite reproduce` over several machines, and with joints made anew; docs/batch.md."""

import subprocess
import sys
from pathlib import Path

from gill_lite.errors import GillError
from gill_lite.experiments.reproduce import DEFAULTS, ONE_SEED, Table, choose, prepare_folder
from gill_lite.model.checkpoint import WEIGHTS, joints_folder
from gill_lite.training import recipes


def compute_shard(tables: list[str], parameters: dict, output_dir: Path, shard: str) -> None:
    """Score part "i/n" of every drawing of `tables`, without notebooks. Resumable.

    Tables that draw little (retrieval, decide) are computed whole when the parts are merged.
    """
    from gill_lite.evaluation.shards import Shard

    part = Shard.read(shard)
    chosen = choose(tables)
    output_dir = prepare_folder(parameters["profile"], output_dir)
    for table in chosen:
        for evaluation in _evaluations(table, parameters, output_dir):
            evaluation.run(part)
    print(f"part {part} is done; when all are: gill-lite reproduce --merge, with the same options")


def merge_shards(tables: list[str], output_dir: Path) -> None:
    """Put the parts of every drawing of `tables` together in place, as of one process.

    Raises GillError naming the parts that are missing.
    """
    from gill_lite.evaluation.protocol import get_protocol
    from gill_lite.evaluation.shards import merge, shards_in
    from gill_lite.evaluation.tables import get_table

    found = 0
    for table in choose(tables):
        for number in table.drawn:
            for protocol in ("corrected", "official"):
                folder = output_dir / get_table(number).under(get_protocol(protocol)).name
                if shards_in(folder):
                    merge(folder)
                    found += 1
    if not found:
        raise GillError(
            f"{output_dir} holds no parts of these tables; make them with "
            "`gill-lite reproduce --shard i/n`"
        )


def _evaluations(table: Table, parameters: dict, output_dir: Path):
    """What a table draws, ready to run, as its notebook prepares it."""
    from gill_lite.evaluation.evaluate import prepare
    from gill_lite.evaluation.tables import get_table

    models = None
    for number in table.drawn:
        spec = get_table(number)
        size = f"num_{spec.task.examples}"
        seeds = [0] if table.number in ONE_SEED else parameters["seeds"] or DEFAULTS["seeds"]
        evaluation = prepare(
            spec, output_dir, parameters["profile"], seeds, parameters[size] or DEFAULTS[size],
            parameters["run_seed"], parameters["protocol"] if table.protocols else "corrected",
            joints_root=parameters["joints_dir"] or None, models=models,
        )  # fmt: skip
        models = evaluation.models
        yield evaluation


def retrain(tables: list[str], seeds: list[int] | None, output_dir: Path) -> Path:
    """Train the joints that `tables` need anew, into `output_dir`/joints; returns that folder.

    Goes on where it was stopped; finished joints are kept. Raises GillError where one fails.
    """
    from gill_lite.evaluation.tables import get_table

    root = output_dir.resolve() / "joints"
    needed = dict.fromkeys(
        (method, seed)
        for table in choose(tables)
        for method in _methods(table, get_table)
        for seed in recipes.seeds_of(method, seeds or DEFAULTS["seeds"])
    )
    for place, (method, seed) in enumerate(needed, start=1):
        folder = joints_folder(method, seed, root)
        if (folder / WEIGHTS).is_file():
            continue
        print(f"joints {place} of {len(needed)}: {recipes.train_command(method, seed)}", flush=True)
        options = recipes.train_options(method, seed)
        typed = [part for name, value in options.items()
                 for part in (f"--{name.replace('_', '-')}", str(value))]  # fmt: skip
        made = subprocess.run([sys.executable, "-m", "gill_lite", "train", *typed, "-o", folder])
        if made.returncode:
            raise GillError(f"training {method}-{seed} failed, see above; nothing was reproduced")
    return root


def _methods(table: Table, get_table) -> list[str]:
    """The learned methods of a table."""
    if table.number == "retrieval":
        return ["gill", "fromage"]
    return [m for number in table.drawn for m in get_table(number).learned] or ["gill"]
