"""`gill-lite evaluate`: one table, in one process, in several, or a part of it by hand."""

import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from gill_lite.errors import GillError
from gill_lite.evaluation.evaluate import Evaluation, TableSpec, prepare, results, save
from gill_lite.evaluation.protocol import get_protocol
from gill_lite.evaluation.run import RunResult
from gill_lite.evaluation.shards import Shard, merge
from gill_lite.evaluation.tables import get_table
from gill_lite.evaluation.tasks import CAPTIONS
from gill_lite.files import read_json
from gill_lite.profiles import Profile, get_profile

PATIENCE = timedelta(days=30)  # that a process waits for the others


def evaluate(arguments, output_dir: Path) -> int:
    """Compute, or merge, the table that the parsed `arguments` name. Returns the exit status."""
    started = time.time()
    spec = get_table(arguments.table).under(get_protocol(arguments.protocol))
    profile = get_profile(arguments.profile)
    shard = arguments.shard and Shard.read(arguments.shard)
    if arguments.merge:
        _finish(spec, output_dir, merge(output_dir / spec.name), started, arguments.typed)
        return 0
    with processes(cpu=profile.name == "mini") as state:
        if state.num_processes > 1 and shard:
            raise GillError("--shard is for parts started by hand, not under accelerate launch")
        evaluation = _prepare(arguments, output_dir, profile, state.device)
        run = run_shared(evaluation, state, shard)
    if shard and shard.count > 1:
        print(f"part {shard} is done; when all are: gill-lite evaluate {spec.number} --merge")
    elif run is not None:
        _finish(spec, output_dir, run, started, arguments.typed)
    return 0


def run_shared(evaluation: Evaluation, state, shard: Shard | None = None) -> RunResult | None:
    """Score the share of this process, or the part `shard` of work started by hand.

    state: Accelerate's. The first of several processes waits for all and returns the whole run,
    the others None.
    """
    part = shard or Shard(state.process_index + 1, state.num_processes)
    run = evaluation.run(part, progress=None if state.is_main_process else False)
    if state.num_processes == 1:
        return run
    state.wait_for_everyone()
    return merge(evaluation.folder) if state.is_main_process else None


def _finish(spec: TableSpec, output_dir: Path, run: RunResult, started: float, typed: str) -> None:
    """Write results and scores of a whole run; print the table."""
    from gill_lite.report import page as report

    config = read_json(output_dir / spec.name / "config.json", "run configuration")
    settings = {
        f"num_{spec.task.examples}": config["data"]["taken"],
        "seeds": config["seeds"],
        "run_seed": config["run_seed"],
    }
    name = config["profile"]["name"]
    result = results(spec, run, started, name, command=typed, config=config, **settings)
    path = save(output_dir, run, result)
    print(report.as_text(result))
    print(f"results: {path}")


def _prepare(arguments, output_dir: Path, profile: Profile, device):
    """The evaluation that the options ask for."""
    joints = arguments.joints or ()
    seeds = arguments.seeds or (range(len(joints)) if joints else (0, 1, 2))
    spec = get_table(arguments.table)
    if arguments.num_inference_steps:
        profile = profile.replace(num_inference_steps=arguments.num_inference_steps)
    named = {name: getattr(arguments, name) for name in ("lm", "vision", "diffusion")}
    return prepare(
        spec,
        output_dir,
        profile,
        tuple(seeds),
        getattr(arguments, f"num_{spec.task.examples}"),
        arguments.run_seed,
        arguments.protocol,
        data=_data(arguments, spec.task.name, profile),
        joints=joints,
        metrics=arguments.metrics,
        device=device,
        dtype=arguments.dtype or ("fp16" if device.type == "cuda" else "fp32"),
        backbones={name: value for name, value in named.items() if value},
        cache_dir=arguments.cache,
        batch_size=arguments.batch_size,
    )


def _data(arguments, task: str, profile: Profile) -> tuple[Path, Path] | None:
    """The official files named for the task; None for the mini world's examples."""
    names = f"{task}_{'tsv' if task == CAPTIONS.name else 'json'}", f"{task}_images"
    given = [getattr(arguments, name) for name in names]
    if all(given):
        return tuple(given)
    one, other = (f"--{name.replace('_', '-')}" for name in names)
    if any(given):
        raise GillError(f"name both {one} and {other}, or neither")
    if profile.name != "mini":
        raise GillError(
            f"profile '{profile.name}' is evaluated on official files: name {one} and {other}"
        )
    return None


@contextmanager
def processes(cpu: bool):
    """Accelerate's view of the processes that share the work; one where nothing launched more.

    cpu: take no GPU even where there is one.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    cpu = cpu or parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
    state = PartialState(cpu=cpu, timeout=PATIENCE)
    try:
        yield state
    finally:
        if state.num_processes > 1:
            state.destroy_process_group()
