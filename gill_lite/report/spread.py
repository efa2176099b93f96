"""How much hangs on the one language model: Tables 1 and 2 over several, beside the joints.

Seeds of the joints show how much their training varies, on one language model. `gill_lm1` and
`gill_lm2` stand on others of the same recipe and corpus, pretrained from other seeds, with joints
of their own.
"""

from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from gill_lite.report import claims
from gill_lite.report.scores import FRAME_COLUMNS
from gill_lite.training.recipes import EVERY_LM, RECIPES

METRIC = "clip_similarity"


def methods(frame: pd.DataFrame) -> list[str]:
    """GILL on each language model that the scores have, the mini world's own first."""
    there = set(frame["method"])
    return [name for name in EVERY_LM if name in there]


def rows(frame: pd.DataFrame, contexts: Iterable, metric: str = METRIC) -> list[dict]:
    """One JSON row a context: the mean with each joints' seed and each language model.

    joints_sd and lms_sd are standard deviations over those means (n - 1); a language model's is
    the mean over its joints. Empty where the scores know one language model only.
    """
    known = methods(frame)
    if len(known) < 2 or metric not in frame.columns:
        return []
    means = frame.groupby(["context", "method", "seed"])[metric].mean()
    made = []
    for context in contexts:
        joints = means[context.name]["gill"]
        lms = means[context.name][known].groupby("method").mean()[known]
        made.append({
            "context": context.label,
            "metric": metric,
            "joints": [round(float(value), 6) for value in joints],
            "joints_sd": _deviation(joints),
            "lms": {name: round(float(value), 6) for name, value in lms.items()},
            "lms_sd": _deviation(lms),
        })  # fmt: skip
    return made


def _deviation(values) -> float | None:
    return round(float(values.std()), 6) if len(values) > 1 else None


def verdicts(judged: list, frame: pd.DataFrame) -> list[dict]:
    """The verdicts on `judged` claims about GILL, once for each language model.

    On each the first seed of the joints alone is read, so that they are compared alike; the
    intervals are over stories, and what the seeds vary is seen beside them (`rows`).
    """
    known = methods(frame) if len(frame) else []
    if len(known) < 2:
        return []
    about = [claim for claim in judged if "gill" in claim.statistic.methods]
    made = []
    for name in known:
        part = frame[(frame["method"] == name) & (frame["seed"] == RECIPES[name].seeds[0])]
        part = part.assign(method="gill")
        others = frame[~frame["method"].isin(known)]
        cells = pd.concat([others, part], ignore_index=True).drop_duplicates(list(FRAME_COLUMNS))
        made += [{"lm": RECIPES[name].lm or "0", **_over_stories(c, cells)} for c in about]
    return made


def _over_stories(claim, cells: pd.DataFrame) -> dict:
    metric = claim.statistic.metric
    intervals = [bound.interval(cells, metric) for bound in claim.statistic.bounds]
    return claims.claim_row(claim, *(replace(interval, seeds=0) for interval in intervals))


def means_frame(spread: list[dict]) -> pd.DataFrame:
    """The spread as text, from `rows` or a results file."""
    shown = []
    for row in spread:
        lms = {f"LM {RECIPES[name].lm or '0'}": f"{value:.3f}"
               for name, value in row["lms"].items()}  # fmt: skip
        joints = "one seed" if row["joints_sd"] is None else f"{row['joints_sd']:.3f}"
        shown.append({"context": row["context"], **lms, "sd over LMs": f"{row['lms_sd']:.3f}",
                      "sd over joints of LM 0": joints})  # fmt: skip
    return pd.DataFrame(shown).set_index("context") if shown else pd.DataFrame()


def verdicts_frame(told: list[dict]) -> pd.DataFrame:
    """The verdict on each claim under each language model."""
    rows = [(row["statement"], f"LM {row['lm']}", row["verdict"]) for row in told]
    frame = pd.DataFrame(rows, columns=["the paper says", "lm", "verdict"])
    order = frame["the paper says"].unique()
    return frame.pivot(index="the paper says", columns="lm", values="verdict").loc[order]
