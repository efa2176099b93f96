"""`gill-lite evaluate`: one table, in one process, in several, or a part of it by hand."""

import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from gill_lite.cli.options import (
    DTYPES,
    add_max_skipped,
    add_models,
    add_table_options,
    command,
    names,
    place,
    positive,
)
from gill_lite.errors import GillError
from gill_lite.evaluation.run import BATCH
from gill_lite.files import read_json
from gill_lite.profiles import Profile, get_profile

FILES = {  # a task -> what its official file is called and holds
    "vist": ("vist-json", "stories"),
    "visdial": ("visdial-json", "dialogues"),
    "captions": ("captions-tsv", "captions"),
}
PATIENCE = timedelta(days=30)  # that a process waits for the others


def add_evaluate(subparsers) -> None:
    """The subcommand and its options."""
    text = (
        "Compute one table, without its notebook. Writes results/*.json into the run folder. "
        "`accelerate launch -m gill_lite evaluate ...` shares the work over processes; by hand, "
        "start it with --shard 1/n to --shard n/n and then with --merge. In the paper profile "
        "name the official files and the joints."
    )
    parser = command(subparsers, "evaluate", run, text)
    parser.add_argument("table", help="for example 1, retrieval or decide; any other lists all")
    add_table_options(parser)
    _add_data_split(parser)
    _add_parts(parser)
    _add_data(parser)
    _add_model_options(parser)
    _add_machine(parser)


def _add_data_split(parser) -> None:
    text = "scenes of the mini world that training has seen, or (the last of) others"
    parser.add_argument("--split", choices=("seen", "novel"), default="seen", help=text)


def _add_parts(parser) -> None:
    parts = parser.add_mutually_exclusive_group()
    text = "compute part i of n only; docs/batch.md"
    parts.add_argument("--shard", metavar="i/n", default=None, help=text)
    text = "put the parts in the run folder together"
    parts.add_argument("--merge", action="store_true", help=text)


def _add_data(parser) -> None:
    for task, (file, what) in FILES.items():
        text = f"official file of {what}, for its table"
        parser.add_argument(f"--{file}", type=Path, metavar="FILE", default=None, help=text)
        text = f"folder of the pictures of the {what}"
        parser.add_argument(f"--{task}-images", type=Path, metavar="DIR", default=None, help=text)
    text = "official votes on prompts, for the table decide; its pictures are not needed"
    parser.add_argument("--partiprompts-tsv", type=Path, metavar="FILE", default=None, help=text)
    add_max_skipped(parser)


def _add_model_options(parser) -> None:
    option = parser.add_argument
    text = "folders of `gill-lite train` or `convert`, one a seed (default: the shipped ones)"
    option("--joints", type=Path, nargs="+", metavar="DIR", default=None, help=text)
    add_models(parser)
    text = "denoising steps a picture (default: the profile's)"
    option("--num-inference-steps", type=positive, metavar="N", default=None, help=text)
    text = "of the paper's profile on a GPU: faster, and rounded otherwise; docs/paper_scale.md"
    option("--fast-drawing", action="store_true", help=text)
    text = "of the models (default: fp32, on a GPU fp16)"
    option("--dtype", choices=DTYPES, default=None, help=text)
    text = "of the table's, for example clip,gill (default: all)"
    option("--methods", type=names, metavar="NAME,...", default=None, help=text)
    text = "of clip_similarity, lpips, attribute_accuracy (default: all there are)"
    option("--metrics", type=names, metavar="NAME,...", default=None, help=text)


def _add_machine(parser) -> None:
    option = parser.add_argument
    option(
        "--batch-size", type=positive, default=BATCH, metavar="N", help="pictures drawn together"
    )
    text = "where drawn pictures are kept for all tables (default: runs/cache)"
    option("--cache", type=place, metavar="DIR", default=None, help=text)


def run(arguments) -> int:
    """Compute, or merge, the table that the parsed `arguments` name. Returns the exit status."""
    started, profile = time.time(), get_profile(arguments.profile)  # told before torch is loaded
    from gill_lite.evaluation.protocol import get_protocol
    from gill_lite.evaluation.shards import Shard, merge
    from gill_lite.evaluation.tables import get_table
    from gill_lite.experiments.reproduce import default_output_dir

    output_dir = (arguments.output_dir or default_output_dir()).resolve()
    if arguments.table == "decide":
        return _decide(arguments, output_dir, profile)
    table = get_table(arguments.table).of_split(arguments.split)
    table = table.under(get_protocol(arguments.protocol))
    shard = arguments.shard and Shard.read(arguments.shard)
    if arguments.merge:
        _finish(table, output_dir, merge(output_dir / table.name), started, arguments.typed)
        return 0
    with processes(cpu=profile.name == "mini") as state:
        if state.num_processes > 1 and shard:
            raise GillError("--shard is for parts started by hand, not under accelerate launch")
        scored = run_shared(_prepare(arguments, output_dir, profile, state.device), state, shard)
    if shard and shard.count > 1:
        print(f"part {shard} is done; when all are: gill-lite evaluate {table.typed} --merge")
    elif scored is not None:
        _finish(table, output_dir, scored, started, arguments.typed)
    return 0


def _decide(arguments, output_dir: Path, profile: Profile) -> int:
    """The table that is fitted to the official votes; in one process, it takes minutes."""
    from gill_lite.experiments.deciding.official import decide
    from gill_lite.report import summary

    if arguments.shard or arguments.merge:
        raise GillError("'decide' takes minutes and has no parts; leave out --shard and --merge")
    if arguments.partiprompts_tsv is None:
        raise GillError(
            "'decide' is evaluated on the official votes: name --partiprompts-tsv; the mini "
            "world's is computed by `gill-lite reproduce --tables decide`"
        )
    with processes(cpu=profile.name == "mini") as state:
        if state.is_main_process:
            result = decide(
                output_dir, profile, arguments.partiprompts_tsv, arguments.seeds or (),
                arguments.joints or (), state.device, _dtype(arguments, state.device),
                _named(arguments), arguments.typed,
            )  # fmt: skip
            print(summary.as_text(summary.complete(result)))
            print(f"results: {output_dir / 'results' / 'decide.json'}")
    return 0


def _dtype(arguments, device) -> str:
    return arguments.dtype or ("fp16" if device.type == "cuda" else "fp32")


def _named(arguments) -> dict:
    """The models named in place of the profile's, and how they draw."""
    options = ("lm", "vision", "diffusion", "fast_drawing")
    named = {name: getattr(arguments, name) for name in options}
    return {name: value for name, value in named.items() if value}


def run_shared(evaluation, state, shard=None):
    """Score the share of this process, or the part `shard` of work started by hand.

    state: Accelerate's. The first of several processes waits for all and returns the whole run,
    the others None.
    """
    from gill_lite.evaluation.shards import Shard, merge

    part = shard or Shard(state.process_index + 1, state.num_processes)
    run = evaluation.run(part, progress=None if state.is_main_process else False)
    if state.num_processes == 1:
        return run
    state.wait_for_everyone()
    return merge(evaluation.folder) if state.is_main_process else None


def _finish(table, output_dir: Path, run, started: float, typed: str) -> None:
    """Write results and scores of a whole run; print the table."""
    from gill_lite.evaluation.evaluate import results, save
    from gill_lite.report import summary

    config = read_json(output_dir / table.name / "config.json", "run configuration")
    result = results(table, config, run, started, typed)
    path = save(output_dir, run, result)
    print(summary.as_text(result))
    print(f"results: {path}")


def _prepare(arguments, output_dir: Path, profile: Profile, device):
    """The evaluation that the options ask for."""
    from gill_lite.evaluation.evaluate import prepare
    from gill_lite.evaluation.tables import get_table

    joints = arguments.joints or ()
    table = get_table(arguments.table).of_split(arguments.split)
    if arguments.num_inference_steps:
        profile = profile.replace(num_inference_steps=arguments.num_inference_steps)
    if arguments.fast_drawing and profile.name == "mini":
        raise GillError("--fast-drawing is for the paper's models; leave it out in profile mini")
    return prepare(
        table, output_dir, profile, arguments.seeds,
        getattr(arguments, f"num_{table.task.examples}"), arguments.run_seed, arguments.protocol,
        data=_data(arguments, table.task.name, profile),
        joints=joints,
        metrics=arguments.metrics,
        device=device,
        dtype=_dtype(arguments, device),
        backbones=_named(arguments),
        cache_dir=arguments.cache,
        batch_size=arguments.batch_size,
        max_skipped=arguments.max_skipped,
        methods=arguments.methods,
    )  # fmt: skip


def _data(arguments, task: str, profile: Profile) -> tuple[Path, Path] | None:
    """The official files named for the task; None for the mini world's examples."""
    wanted = FILES[task][0], f"{task}-images"
    given = [getattr(arguments, name.replace("-", "_")) for name in wanted]
    both = " and ".join(f"--{name}" for name in wanted)
    if any(given) and not all(given):
        raise GillError(f"name both {both}, or neither")
    if not any(given) and profile.name != "mini":
        raise GillError(f"profile '{profile.name}' is evaluated on official files: name {both}")
    return tuple(given) if all(given) else None


@contextmanager
def processes(cpu: bool):
    """Accelerate's view of the processes that share the work; one where nothing launched more.

    cpu: take no GPU even where there is one.
    """
    import torch
    from accelerate.utils import parse_flag_from_env

    from gill_lite.training.processes import join_group

    cpu = cpu or parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
    state = join_group(cpu, timeout=PATIENCE)
    try:
        yield state
    finally:
        if state.num_processes > 1:
            state.destroy_process_group()
