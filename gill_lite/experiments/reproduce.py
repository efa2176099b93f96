"""`gill-lite reproduce`: run the table notebooks headless, then assemble the report."""

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from gill_lite.errors import GillError
from gill_lite.files import only_one, read_json
from gill_lite.profiles import get_profile
from gill_lite.provenance import collect, peak_memory_mb, repository_root


@dataclass(frozen=True)
class Table:
    """One of the paper's tables: what the user types, its results file, its notebook.

    sizes: the notebook's parameters that say how many examples to score. drawn: which tables of
    evaluate.catalog it draws; these can be cut into shards.
    """

    number: str
    name: str
    notebook: str
    sizes: tuple[str, ...] = ("num_stories",)
    drawn: tuple[str, ...] = ()
    protocols: bool = False  # whether the official protocol changes anything


TABLES = {
    table.number: table
    for table in (
        Table("1", "table1_vist", "10_reproduce_table1_vist.ipynb", drawn=("1",), protocols=True),
        Table("2", "table2_visdial", "11_reproduce_table2_visdial.ipynb", ("num_dialogues",),
              ("2",), protocols=True),
        Table("mappers", "mappers", "12_reproduce_mapper_ablation.ipynb",
              ("num_stories", "num_captions"), ("mappers", "mappers-captions")),
        Table("context", "context", "13_reproduce_context_effect.ipynb", drawn=("context",)),
        Table("tokens", "img_tokens", "14_ablate_img_tokens.ipynb", drawn=("tokens",)),
        Table("retrieval", "retrieval", "15_reproduce_retrieval.ipynb"),
        Table("decide", "decide", "16_decide_retrieve_or_generate.ipynb", ("num_prompts",)),
    )
}  # fmt: skip
DEFAULTS: dict = {"seeds": [0, 1, 2], "num_stories": 300, "num_dialogues": 300, "num_captions": 300,
            "num_prompts": 900}  # fmt: skip
ONE_SEED = ("tokens",)  # tables whose joints ship with seed 0 alone


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


def reproduce(tables: list[str], parameters: dict, output_dir: Path, command: str = "") -> int:
    """Compute `tables` into `output_dir`, write report.html, print the tables.

    parameters: notebook parameters (profile, seeds, DEFAULTS' sizes, run_seed, protocol,
    joints_dir); None takes the default, a table is given its own alone. A table that fails leaves
    the others' results in place. Returns the exit status: 0, or 1 if any failed.
    """
    from gill_lite.report import claims
    from gill_lite.report import page as report

    started = time.time()
    chosen = choose(tables)
    output_dir = prepare_folder(parameters["profile"], output_dir)
    with only_one(output_dir):
        outcomes = [_run(table, parameters, output_dir) for table in chosen]
    run = collect(started, parameters["profile"], command)
    run["peak_memory_mb"] = peak_memory_mb(children=True)
    run["notebooks"] = {o.table.name: round(o.seconds, 1) for o in outcomes}
    done = {o.results.stem: read_json(o.results) for o in outcomes if not o.problem}
    problems = [o.problem for o in outcomes if o.problem]
    failed = {o.results.stem for o in outcomes if o.problem}
    results = report.read_results(output_dir / "results")
    results = {name: result for name, result in results.items() if name not in failed}
    page = report.write(output_dir, results, run, problems)
    for result in done.values():
        print(report.as_text(result))
    print(claims.count_text(report.claim_rows(results)))
    for problem in problems:
        print(f"gill-lite: {problem}", file=sys.stderr)
    print(f"report: {_shown(page)}")
    return 1 if problems else 0


def _run(table: Table, parameters: dict, output_dir: Path) -> Outcome:
    """Execute one table's notebook; a failure becomes a sentence, never the end of the run."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    from gill_lite.course.notebooks import execute

    source = repository_root() / "notebooks" / table.notebook
    notebook = output_dir / "notebooks" / table.notebook
    official = table.protocols and parameters.get("protocol") == "official"
    results = output_dir / "results" / f"{table.name}{'_official' * official}.json"
    before = _stamp(results)
    started = time.time()
    if not source.is_file():
        return Outcome(table, results, 0.0, f"{_shown(source)} is missing; restore it from git")
    try:
        execute(source, notebook, _given(table, parameters, output_dir))
        problem = _results_problem(results, before)
    except PapermillExecutionError as error:
        problem = f"failed in cell [{error.exec_count}] with {error.ename}: {error.evalue}"
    except DeadKernelError as error:
        problem = f"lost its Python process ({error}); was it out of memory?"
    if problem:
        problem = f"{table.notebook} {problem} (executed notebook: {_shown(notebook)})"
    return Outcome(table, results, time.time() - started, problem)


def _given(table: Table, parameters: dict, output_dir: Path) -> dict:
    """The parameters of one table's notebook."""
    given = {name: DEFAULTS.get(name) if value is None else value
             for name, value in parameters.items()}  # fmt: skip
    others = {size for other in TABLES.values() for size in other.sizes} - {*table.sizes}
    if not table.protocols or given.get("protocol") == "corrected":
        others.add("protocol")  # what a notebook does of itself
    if not given.get("joints_dir"):
        others.add("joints_dir")
    if table.number in ONE_SEED:
        given["seeds"] = [0]
    given = {name: value for name, value in given.items() if name not in others}
    return {**given, "recompute": True, "output_dir": str(output_dir)}


def _results_problem(path: Path, before: int | None) -> str | None:
    """What is wrong with the results a notebook wrote; `before` is the file's earlier stamp."""
    if _stamp(path) in (None, before):
        return f"ran through but wrote no {_shown(path)}"
    try:
        result = read_json(path, "results file")
    except GillError as error:
        return f"left a broken file: {error}"
    for key in ("table", "title", "rows", "verdicts", "counts", "provenance", "figures"):
        if key not in result:
            return f"left '{key}' out of {_shown(path)}"
    if not result["rows"]:
        return f"wrote no rows into {_shown(path)}"
    lost = [name for name in result["figures"] if not (path.parents[1] / name).is_file()]
    return f"names figures that do not exist: {', '.join(lost)}" if lost else None


def choose(tables: list[str]) -> list[Table]:
    """The tables of these names, in the order of TABLES; "all" names every one.

    Raises GillError for an unknown one.
    """
    for number in tables:
        if number not in (*TABLES, "all"):
            known = ", ".join((*TABLES, "all"))
            raise GillError(f"there is no table '{number}' to reproduce; known: {known}.")
    return [table for table in TABLES.values() if table.number in tables or "all" in tables]


def prepare_folder(profile: str, output_dir: Path) -> Path:
    """The run folder, absolute and made. Raises GillError where it or the profile will not do."""
    if get_profile(profile).name != "mini":
        raise GillError(
            f"the table notebooks draw the mini world; in profile '{profile}' compute the tables "
            f"with `gill-lite evaluate --profile {profile}`, its data and joints, and then the "
            "report with notebook 19 (docs/paper_scale.md)"
        )
    output_dir = output_dir.resolve()
    _make_folder(output_dir)
    return output_dir


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise GillError(f"{_shown(path)} is not a folder: name another with -o.") from None
    except OSError as error:
        raise GillError(
            f"{_shown(path)} cannot be made ({error.strerror}): name another folder with -o."
        ) from None
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise GillError(
            f"{_shown(path)} cannot be written to ({error.strerror}): name another folder with -o."
        ) from None


def _stamp(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None


def _shown(path: Path) -> str:
    """The path as a reader would type it from here."""
    return os.path.relpath(path)
