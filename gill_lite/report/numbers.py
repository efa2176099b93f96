"""Our numbers beside the paper's: DataFrames, and markdown or HTML from pandas."""

import itertools
from collections.abc import Collection, Iterable
from dataclasses import asdict

import pandas as pd

from gill_lite.errors import GillError
from gill_lite.files import shipped
from gill_lite.report.intervals import Interval, two_level_interval, within
from gill_lite.report.scores import Terms, seed_scores
from gill_lite.training.recipes import RECIPES

PAPER_COLUMNS = ["table", "method", "context", "metric", "value", "plus_minus", "source"]
METHODS = {"glide": "GLIDE", "sd": "Stable Diffusion", "gill": "GILL"}  # of Tables 1 and 2
MAPPERS = {
    "sd": METHODS["sd"],
    "linear": "Linear",
    "mlp": "3-layer MLP",
    "encoder": "Transformer encoder",
    "gill": "GILLMapper",
}
TOKENS = {
    **{f"r{n}": f"r = {n} [IMG], k = 4" for n in (1, 2, 4)},
    **{f"k{n}": f"r = 8 [IMG], k = {n}" for n in (1, 2)},
    "gill": "r = 8 [IMG], k = 4",
}
RUNGS = {
    "sd": METHODS["sd"],
    "lm64": "LM 64 wide, 2 layers",
    "lm128": "LM 128 wide, 4 layers",
    "gill": "LM 256 wide, 6 layers",
    "gill_lm1": "the same, second seed",
    "gill_lm2": "the same, third seed",
}
METRICS = {
    "clip_similarity": "CLIP similarity ↑",
    "lpips": "LPIPS ↓",
    "attribute_accuracy": "attribute accuracy ↑",
}
MINI_METRICS = {**METRICS, "lpips": "LPIPS (mini trunk) ↓"}
RECALLS = {f"recall_at_{k}": f"R@{k} ↑" for k in (1, 5, 10)}  # of retrieval
CHANGED = {"changed": "what the last sentence changed ↑"}  # of the stories where one did
FRECHET = {"fid": "Fréchet distance ↓"}  # of a set of pictures, never of one
SEEING = {  # of systems that are shown a picture
    "right": "attributes right ↑",  # of those that captions name
    "named": "attributes named ↑",  # of six
    "yes_no": "yes or no ↑",
    "which": "which color ↑",
    "where": "where ↑",
    "change": "change told ↑",  # a later sentence wins over the picture
    "stale": "old value told ↓",  # the picture wins; neither where it goes unnamed
    "kept": "others kept ↑",  # and the rest stays as the picture has it
    "second": "second picture ↑",  # of two, where they differ
    "shots_0": "log p(color), 0 examples ↑",  # as the next word; in nats
    "shots_2": "log p(color), 2 examples ↑",
}
EDITING = {  # of a chain of edits
    "made": "change made ↑",
    "kept": SEEING["kept"],  # as in the picture before
    "whole": "all as it should be ↑",
}
SHARES = {*RECALLS, *CHANGED, *SEEING, *EDITING, "attribute_accuracy"}
SHARES -= {"shots_0", "shots_2"}  # measures that lie between 0 and 1
NONE = "–"


def paper_results(path=None) -> pd.DataFrame:
    """The paper's numbers our sources state: table, method, context, metric, value, ±, source.

    Raises GillError naming the file where it is missing or its columns are wrong.
    """
    path = path or shipped("paper_results.csv")
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise GillError(f"the paper's numbers {path} cannot be read: {error}") from error
    if list(frame.columns) != PAPER_COLUMNS:
        raise GillError(f"{path} must have the columns {', '.join(PAPER_COLUMNS)}")
    return frame


def paper_number(
    paper: pd.DataFrame, table: str, method: str, context: str, metric: str
) -> tuple[float | None, float | None]:
    """The paper's value and its ±, None where it states none."""
    found = paper[
        (paper.table == table) & (paper.method == method)
        & (paper.context == context) & (paper.metric == metric)
    ]  # fmt: skip
    if found.empty:
        return None, None
    row = found.iloc[0]
    return float(row.value), None if pd.isna(row.plus_minus) else float(row.plus_minus)


def intervals(
    frame: pd.DataFrame, metric: str, learned: Collection[str] = RECIPES
) -> dict[tuple[str, str], Interval]:
    """Mean and interval of each (method, context), over stories and seeds of what is `learned`.

    Few seeds that differ much give an interval wider than any share can be: it ends at 0 and 1.
    """
    cells = dict.fromkeys(zip(frame["method"], frame["context"], strict=True))
    found = {cell: difference(frame, metric, [(1, *cell)], learned) for cell in cells}
    return {cell: within(one, 0, 1) if metric in SHARES else one for cell, one in found.items()}


def difference(
    frame: pd.DataFrame, metric: str, terms: Terms, learned: Collection[str] = RECIPES
) -> Interval:
    """A signed sum of cells, story by story, over stories and seeds of what is `learned`."""
    return two_level_interval(seed_scores(frame, metric, terms), learned)


def result_rows(
    frame: pd.DataFrame, table: str, contexts: Iterable, metrics: dict[str, str] = MINI_METRICS,
    methods: dict[str, str] = METHODS, measured: dict[str, dict] | None = None,
    learned: Collection[str] = RECIPES,
) -> list[dict]:  # fmt: skip
    """The table as JSON rows: one a (method, context, metric) where we or the paper have a number.

    Keys: method, context, metric (labels); mean, low, high, n, undefined (ours); paper, paper_pm.
    Rows follow the order of `methods`, `contexts` (`Context`s) and `metrics`. None: no number.
    measured: metric -> (method, context) -> Interval, where a metric is no mean over examples.
    """
    paper = paper_results()
    ours = {m: intervals(frame, m, learned) for m in metrics if m in frame.columns}
    ours |= measured or {}
    rows = []
    for method, context, metric in itertools.product(methods, list(contexts), metrics):
        mine = ours.get(metric, {}).get((method, context.name))
        value, spread = paper_number(paper, table, method, context.name, metric)
        if mine is None and value is None:
            continue
        mine = asdict(mine or Interval(None, None, None, 0, "not run"))
        labels = {"method": methods[method], "context": context.label, "metric": metrics[metric]}
        rows.append({**labels, **mine, "paper": value, "paper_pm": spread})
    return rows


def results_frame(rows: list[dict]) -> pd.DataFrame:
    """Ours and the paper's side by side as text, from `result_rows` or a results file.

    Rows: method and context. Columns: (metric, "ours" or "paper"), empty ones left out.
    """
    index = list(dict.fromkeys((row["method"], row["context"]) for row in rows))
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    shown = pd.DataFrame(
        NONE,
        index=pd.MultiIndex.from_tuples(index, names=["method", "context"]) if index else [],
        columns=pd.MultiIndex.from_product([metrics, ["ours", "paper"]]) if rows else [],
    )
    for row in rows:
        place = (row["method"], row["context"])
        shown.loc[place, (row["metric"], "ours")] = _ours_text(row)
        shown.loc[place, (row["metric"], "paper")] = _paper_text(row)
    return shown.loc[:, (shown != NONE).any()]


def _ours_text(row: dict) -> str:
    if row["mean"] is None and row["undefined"] in ("not run", "no examples"):
        return NONE
    return str(Interval.of(row))


def _paper_text(row: dict) -> str:
    if row["paper"] is None:
        return NONE
    spread = "" if row["paper_pm"] is None else f" ± {row['paper_pm']:.4f}"
    return f"{row['paper']:.3f}{spread}"


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """One heading a column and no index, as markdown and a terminal want it."""
    result = frame.copy()
    if isinstance(result.columns, pd.MultiIndex):
        result.columns = [", ".join(str(part) for part in column) for column in result.columns]
    return result.reset_index()


def to_markdown(frame: pd.DataFrame) -> str:
    """The frame as GitHub markdown, by pandas."""
    return flat(frame).to_markdown(index=False, disable_numparse=True)
