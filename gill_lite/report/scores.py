"""The scores of a run as a DataFrame: a row a picture, or a column a cell of the table."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from gill_lite.errors import GillError

FRAME_COLUMNS = ("example", "method", "context", "seed")
Terms = Iterable[tuple[int, str, str]]  # a signed sum of cells: sign, method, context


def scores_frame(rows: Sequence[dict]) -> pd.DataFrame:
    """The rows of a run over `work_items`, long: example, method, context, seed, scores."""
    records = []
    for row in rows:
        method, context, seed, example = row["key"].split("/", 3)
        scores = {name: value for name, value in row.items() if name != "key"}
        records.append(
            {"example": example, "method": method, "context": context, "seed": int(seed), **scores}
        )
    return pd.DataFrame(records, columns=None if records else list(FRAME_COLUMNS))


def story_scores(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean over seeds of one metric: a row a story, a column a (method, context).

    Missing where a story lacks one of its cell's seeds. Raises GillError for an unknown metric.
    """
    _check(frame, metric)
    cells = ["method", "context"]
    groups = frame.groupby(["example", *cells])[metric]
    seeds = frame.groupby(cells)["seed"].nunique()
    means, counts = groups.mean().unstack(cells), groups.count().unstack(cells)
    return means.where(counts == seeds.reindex(counts.columns), axis="columns")


def seed_scores(frame: pd.DataFrame, metric: str, terms: Terms) -> dict[str, np.ndarray]:
    """By method, what it adds to a signed sum of cells: (S, J), a column a seed of its joints.

    S are the stories that have all these cells with all these seeds; of a method's seeds those
    count that it has in each of its contexts. Empty where a cell was not run. Raises GillError
    for an unknown metric.
    """
    _check(frame, metric)
    terms = list(terms)
    wanted = pd.MultiIndex.from_tuples([term[1:] for term in terms])
    cells = pd.MultiIndex.from_frame(frame[["method", "context"]])
    few = frame[cells.isin(wanted)]
    wide = few.pivot(index="example", columns=["method", "context", "seed"], values=metric)
    wide = wide.sort_index(axis="columns")
    if not set(wanted) <= set(wide.columns.droplevel("seed")):
        return {}
    sums: dict[str, pd.DataFrame] = {}
    for sign, method, context in terms:
        signed = sign * wide[method, context]
        old = sums.get(method)
        sums[method] = signed if old is None else (old + signed).dropna(axis=1, how="all")
    stories = pd.concat(sums, axis=1, join="inner").dropna()
    return {method: stories[method].to_numpy() for method in sums}


def _check(frame: pd.DataFrame, metric: str) -> None:
    if metric not in frame.columns:
        known = [name for name in frame.columns if name not in FRAME_COLUMNS]
        raise GillError(f"the scores have no metric '{metric}'; they have {', '.join(known)}")
