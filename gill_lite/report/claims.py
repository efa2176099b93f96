"""The paper's claims and their verdicts. A verdict is computed, never written down.

`data/claims.csv` holds for each claim the statistic that decides it, such as
`clip_similarity: gill/captions5 - sd/captions5 > 0`: a metric, a signed sum of cells
(method/context), a side and a threshold.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from gill_lite.errors import GillError
from gill_lite.files import read_text, shipped
from gill_lite.report.intervals import Interval, mean_interval
from gill_lite.report.scores import story_scores

REPRODUCED = "reproduced"
WITHIN_NOISE = "same direction, within noise"
NOT_REPRODUCED = "not reproduced"
UNDEFINED = "undefined"  # no interval can be computed
NOT_RUN = "not run"
NOTHING = Interval(None, None, None, 0, NOT_RUN)
COLUMNS = ["id", "table", "statement", "source", "statistic"]
STATISTIC = re.compile(r"(\w+):\s*([+-]?\s*\w+/\w+(?:\s*[+-]\s*\w+/\w+)*)\s*([<>])\s*(-?\d+\.?\d*)")
TERM = re.compile(r"([+-]?)\s*(\w+)/(\w+)")


@dataclass(frozen=True)
class Statistic:
    """A signed sum of cells of one metric, claimed to lie on one side of a threshold."""

    metric: str
    terms: tuple[tuple[int, str, str], ...]  # sign, method, context
    side: str  # ">" or "<"
    threshold: float
    text: str  # as the file has it

    @classmethod
    def read(cls, text: str) -> "Statistic":
        """Read `metric: a/b - c/d > 0`. Raises GillError showing what it could not read."""
        match = STATISTIC.fullmatch(text.strip())
        if not match:
            raise GillError(
                f"cannot read the statistic '{text}'; it must look like "
                "'clip_similarity: gill/captions5 - sd/captions5 > 0'"
            )
        metric, terms, side, threshold = match.groups()
        signed = tuple((-1 if sign == "-" else 1, m, c) for sign, m, c in TERM.findall(terms))
        return cls(metric, signed, side, float(threshold), text.strip())

    def per_story(self, frame: pd.DataFrame) -> np.ndarray:
        """The signed sum of each story that has every cell, (S,); empty if a cell was not run."""
        if self.metric not in frame.columns:
            return np.empty(0)
        stories = story_scores(frame, self.metric)
        cells = [(method, context) for _, method, context in self.terms]
        if not set(cells) <= set(stories.columns):
            return np.empty(0)
        complete = stories[list(dict.fromkeys(cells))].dropna()
        signs = [sign for sign, _, _ in self.terms]
        return sum(s * complete[c].to_numpy() for s, c in zip(signs, cells, strict=True))


@dataclass(frozen=True)
class Claim:
    """One statement of the paper, in our words, and the statistic that decides it."""

    id: str
    table: str
    statement: str
    source: str
    statistic: Statistic


def read_claims(path=None) -> list[Claim]:
    """The claims of a CSV file. Raises GillError naming the file where its format is broken."""
    path = path or shipped("claims.csv")
    reader = csv.DictReader(read_text(path, "claims file").splitlines())
    if reader.fieldnames != COLUMNS:
        raise GillError(f"claims file {path} must have the columns {', '.join(COLUMNS)}")
    rows: list[dict] = list(reader)
    claims = [Claim(**{**row, "statistic": Statistic.read(row["statistic"])}) for row in rows]
    ids = [claim.id for claim in claims]
    if len(set(ids)) < len(ids):
        raise GillError(f"claims file {path} uses an id twice")
    return claims


def verdict(interval: Interval, side: str = ">", threshold: float = 0.0) -> str:
    """The one rule, from the interval of the per-story statistic.

    Reproduced: the whole interval lies on the claimed side of the threshold. Same direction,
    within noise: the mean does, the interval does not. Otherwise not reproduced. Without
    scores: not run; where the scores allow no interval: undefined.
    """
    if side not in ("<", ">"):
        raise GillError(f"the side of a claim is '<' or '>', not {side!r}")
    if interval.mean is None:
        return NOT_RUN
    if interval.low is None or interval.high is None:
        return UNDEFINED
    sign = 1 if side == ">" else -1
    if min(sign * (interval.low - threshold), sign * (interval.high - threshold)) > 0:
        return REPRODUCED
    return WITHIN_NOISE if sign * (interval.mean - threshold) > 0 else NOT_REPRODUCED


Measured = dict[str, Callable[[Statistic], Interval]]  # metrics that single examples don't have


def judge(claim: Claim, frame: pd.DataFrame, measured: Measured | None = None) -> dict:
    """The JSON row of a claim, judged from the long frame of scores (`scores.scores_frame`).

    Keys: id, statement, verdict, difference, low, high, n, undefined, source, statistic.
    measured: what computes a statistic of a metric that is no mean over examples.
    """
    statistic = claim.statistic
    compute = (measured or {}).get(statistic.metric, lambda s: mean_interval(s.per_story(frame)))
    return claim_row(claim, compute(statistic))


def claim_row(claim: Claim, interval: Interval) -> dict:
    """A claim as results files hold it, its verdict computed from the interval."""
    found, statistic = asdict(interval), claim.statistic
    told = verdict(interval, statistic.side, statistic.threshold)
    return {"id": claim.id, "statement": claim.statement, "verdict": told,
            "difference": found.pop("mean"), **found, "source": claim.source,
            "statistic": statistic.text}  # fmt: skip


def all_verdicts(results: Iterable[dict], claims: Iterable[Claim] | None = None) -> list[dict]:
    """A row for every claim there is, judged from the content of results files.

    The verdict is computed anew from the interval a file holds; a claim that no file has is not
    run. Keys: id, table, statement, verdict, and the file's difference, low, high, n, undefined.
    """
    found = {row["id"]: row for result in results for row in result["verdicts"]}
    rows = []
    for claim in read_claims() if claims is None else claims:
        interval = Interval.of(found[claim.id]) if claim.id in found else NOTHING
        rows.append({"table": claim.table, **claim_row(claim, interval)})
    return rows


def count_text(rows: list[dict]) -> str:
    """ "8 of 21 claims reproduced; 2 same direction, within noise; 11 not reproduced." """
    counts = Counter(row["verdict"] for row in rows)
    order = (WITHIN_NOISE, NOT_REPRODUCED, UNDEFINED, NOT_RUN)
    others = "; ".join(f"{counts[name]} {name}" for name in order if counts[name])
    text = f"{counts[REPRODUCED]} of {len(rows)} claims reproduced"
    return f"{text}; {others}." if others else f"{text}."


def verdicts_frame(rows: list[dict]) -> pd.DataFrame:
    """The verdicts as text, from `judge` or a results file."""
    shown = [(row["statement"], str(Interval.of(row)), row["verdict"]) for row in rows]
    return pd.DataFrame(shown, columns=["the paper says", "our difference", "verdict"])
