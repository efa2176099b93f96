"""The scores of a run as a DataFrame: a row a picture, or a column a cell of the table."""

from collections.abc import Sequence

import pandas as pd

from gill_lite.errors import GillError

FRAME_COLUMNS = ("example", "method", "context", "seed")


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
    if metric not in frame.columns:
        known = [name for name in frame.columns if name not in FRAME_COLUMNS]
        raise GillError(f"the scores have no metric '{metric}'; they have {', '.join(known)}")
    cells = ["method", "context"]
    groups = frame.groupby(["example", *cells])[metric]
    seeds = frame.groupby(cells)["seed"].nunique()
    means, counts = groups.mean().unstack(cells), groups.count().unstack(cells)
    return means.where(counts == seeds.reindex(counts.columns), axis="columns")
