"""`gill-lite reproduce`: run the table notebooks headless, then assemble the report."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

from tqdm import tqdm

from gill_lite.errors import GillError
from gill_lite.evaluation.tables import Table
from gill_lite.files import only_one, read_json
from gill_lite.profiles import get_profile
from gill_lite.provenance import collect, peak_memory_mb, repository_root, usable_cores
from gill_lite.training import recipes

AT_ONCE = 2  # tables: each takes more than a GB of memory


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended: `problem` is None, or one sentence for the reader."""

    table: Table
    results: Path
    seconds: float
    problem: str | None


def default_output_dir() -> Path:
    """runs/<today> in the repository, so that a second run on the same day continues."""
    return repository_root() / "runs" / date.today().isoformat()


def reproduce(tables: list[Table], parameters: dict, output_dir: Path, command: str = "") -> int:
    """Compute `tables` into `output_dir`; print each and write report.html as soon as it is there.

    parameters: notebook parameters (profile, seeds, sizes, run_seed, protocol, joints_dir); None
    takes the table's default, and each table is given its own alone. The quickest table begins,
    with another beside it where there are two cores. A table that fails leaves the others' results
    in place. Returns the exit status: 0, or 1 if any failed.
    """
    from gill_lite.course.kernels import own_environment
    from gill_lite.experiments.side_by_side import side_by_side
    from gill_lite.report import claims, summary

    started, outcomes = time.time(), []
    output_dir = prepare_folder(parameters["profile"], output_dir)
    run_one = partial(_run, parameters=parameters, output_dir=output_dir)
    beside = partial(shares_nothing, seeds=parameters["seeds"])
    made = side_by_side(quickest_first(tables), run_one, min(usable_cores(), AT_ONCE), beside)
    waiting = list(tables)
    with only_one(output_dir), own_environment(), closing(made):
        for table, outcome in made:
            outcomes.append(outcome)
            waiting.remove(table)
            run = collect(started, parameters["profile"], command)
            results, written = _report(outcomes, waiting, output_dir, run)
            with tqdm.external_write_mode(file=sys.stdout):
                _tell(outcome, results)
                if waiting:
                    print(f"report so far: {_shown(written)}, {len(waiting)} to come", flush=True)
    print(claims.count_text(summary.claim_rows(results)))
    print(f"report: {_shown(written)}")
    return 1 if any(outcome.problem for outcome in outcomes) else 0


def quickest_first(tables: list[Table]) -> list[Table]:
    """The tables, the one that took the reference run least before the others."""
    first = min(tables, key=lambda table: table.came_out.minutes if table.came_out else 0)
    return [first, *(table for table in tables if table is not first)]


def shares_nothing(table: Table, under_way: list[Table], ended: list[Table], seeds) -> bool:
    """Whether `table` may be made beside those under way: it shares no pictures with them.

    Pictures that ended tables have made do not count: they are in the cache.
    """

    def pictures(tables: Sequence[Table]) -> set[tuple]:
        parts = [part for table in tables for part in table.parts]
        return {
            (part.scorer, part.task.name, *cell)
            for part in parts
            for cell in part.cells(part.seeds_for(seeds))
        }

    return not (pictures([table]) & pictures(under_way)) - pictures(ended)


def _report(
    outcomes: list[Outcome], waiting: list[Table], output_dir: Path, run: dict
) -> tuple[dict, Path]:
    """Write report.html of what is there; returns the results in it and its path."""
    from gill_lite.report import page, summary

    del run["peak_memory_mb"]  # of this process, which computes nothing
    run["peak_memory_mb_of_a_table"] = peak_memory_mb(children=True)
    run["notebooks"] = {o.table.name: round(o.seconds, 1) for o in outcomes}
    problems = [o.problem for o in outcomes if o.problem]
    failed = {o.results.stem for o in outcomes if o.problem}
    results, broken = summary.read_results(output_dir / "results")
    results = {name: result for name, result in results.items() if name not in failed}
    coming = [table.title for table in waiting]
    return results, page.write(output_dir, results, [*problems, *broken], run, coming=coming)


def _tell(outcome: Outcome, results: dict) -> None:
    """Print a table, or what went wrong with it."""
    from gill_lite.report import summary

    if outcome.problem:
        print(f"gill-lite: {outcome.problem}", file=sys.stderr)
    else:
        print(summary.as_text(results[outcome.results.stem]), flush=True)


def _run(table: Table, kernel, parameters: dict, output_dir: Path) -> Outcome:
    """Execute one table's notebook; a failure becomes a sentence, never the end of the run."""
    from nbclient.exceptions import DeadKernelError
    from nbclient.util import run_sync
    from papermill.exceptions import PapermillExecutionError

    from gill_lite.course.kernels import run_notebook
    from gill_lite.experiments.side_by_side import Line

    source = repository_root() / "notebooks" / table.notebook
    notebook = output_dir / "notebooks" / table.notebook
    given = _given(table, parameters, output_dir)
    official = table.protocols and parameters["protocol"] == "official"
    results = output_dir / "results" / f"{table.name}{'_official' * official}.json"
    before = _stamp(results)
    started = time.time()
    if not source.is_file():
        return Outcome(table, results, 0.0, f"{_shown(source)} is missing; restore it from git")
    try:
        with Line(source.stem) as line:
            run_notebook(source, notebook, given, line, kernel=kernel)
        problem = _results_problem(results, before)
    except PapermillExecutionError as error:
        problem = f"failed in cell [{error.exec_count}] with {error.ename}: {error.evalue}"
    except DeadKernelError as error:
        problem = f"lost its Python process ({error}); was it out of memory?"
    finally:
        if kernel.has_kernel:
            run_sync(kernel.shutdown_kernel)(now=True)
    if problem:
        problem = f"{table.notebook} {problem} (executed notebook: {_shown(notebook)})"
    return Outcome(table, results, time.time() - started, problem)


def _given(table: Table, parameters: dict, output_dir: Path) -> dict:
    """The parameters of one table's notebook."""
    given = {
        "profile": parameters["profile"],
        "run_seed": parameters["run_seed"],
        "seeds": list(table.seeds_for(parameters["seeds"])),
        **{size: parameters[size] or count for size, count in table.sizes.items()},
        "recompute": True,
        "output_dir": str(output_dir),
    }
    if table.protocols and parameters["protocol"] != "corrected":  # the default of a notebook
        given["protocol"] = parameters["protocol"]
    if parameters["joints_dir"]:
        given["joints_dir"] = parameters["joints_dir"]
    return given


def _results_problem(path: Path, before: int | None) -> str | None:
    """What is wrong with the results a notebook wrote; `before` is the file's earlier stamp."""
    from gill_lite.report.summary import complete

    if _stamp(path) in (None, before):
        return f"ran through but wrote no {_shown(path)}"
    try:
        result = complete(read_json(path, "results file"), _shown(path))
    except GillError as error:
        return f"left a broken file: {error}"
    if not result["rows"]:
        return f"wrote no rows into {_shown(path)}"
    lost = [name for name in result["figures"] if not (path.parents[1] / name).is_file()]
    return f"names figures that do not exist: {', '.join(lost)}" if lost else None


def retrain(tables: list[Table], seeds: Sequence[int] | None, output_dir: Path) -> Path:
    """Train the joints that `tables` need anew, into `output_dir`/joints; returns that folder.

    Goes on where it was stopped; finished joints are kept. Raises GillError where one fails.
    """
    from gill_lite.model.checkpoint import WEIGHTS, joints_folder  # brings torch

    root = output_dir.resolve() / "joints"
    needed = dict.fromkeys(
        (method, seed)
        for table in tables
        for part in table.parts
        for method in part.learned
        for seed in recipes.seeds_of(method, part.seeds_for(seeds))
    )
    for place, (method, seed) in enumerate(needed, start=1):
        folder = joints_folder(method, seed, root)
        if (folder / WEIGHTS).is_file():
            continue
        print(f"joints {place} of {len(needed)}: {recipes.train_command(method, seed)}", flush=True)
        options = recipes.train_options(method, seed)
        typed = [part for name, value in options.items()
                 for part in (f"--{name.replace('_', '-')}", str(value))]  # fmt: skip
        made = subprocess.run(
            [sys.executable, "-P", "-m", "gill_lite", "train", *typed, "-o", folder]
        )  # -P: a torch.py in the folder it runs in is not ours
        if made.returncode:
            raise GillError(f"training {method}-{seed} failed, see above; nothing was reproduced")
    return root


def prepare_folder(profile: str, output_dir: Path) -> Path:
    """The run folder, absolute and made. Raises GillError where it or the profile will not do."""
    if get_profile(profile).name != "mini":
        raise GillError(
            f"the table notebooks draw the mini world; in profile '{profile}' compute the tables "
            f"with `gill-lite evaluate --profile {profile}`, its data and joints, and then the "
            "report with notebook 19 (docs/paper_scale.md)"
        )
    output_dir = output_dir.resolve()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output_dir):
            pass
    except (FileExistsError, NotADirectoryError):
        raise GillError(f"{_shown(output_dir)} is not a folder: name another with -o.") from None
    except OSError as error:
        done = "written to" if output_dir.is_dir() else "made"
        raise GillError(
            f"{_shown(output_dir)} cannot be {done} ({error.strerror}): name another folder with "
            "-o."
        ) from None
    return output_dir


def _stamp(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None


def _shown(path: Path) -> str:
    """The path as a reader would type it from here."""
    return os.path.relpath(path)
