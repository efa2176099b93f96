"""The paper's claims and their verdicts. A verdict is computed, never written down.

`data/claims.csv` holds for each claim the statistic that decides it. A statistic is its sentence:
a metric, and one or several bounds that must all hold, such as
`clip_similarity: gill/captions5 - sd/captions5 > 0`: a signed sum of cells (method/context), a
side and a threshold. `a per b` is a share: how much a sum is of another, its yardstick. Where
nothing here can be measured, it is `none:` and the reason.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import pandas as pd

from gill_lite.errors import GillError
from gill_lite.files import read_text, shipped
from gill_lite.report.intervals import (
    Interval,
    Resampled,
    part_of,
    ratio_interval,
    resample,
)
from gill_lite.report.numbers import difference
from gill_lite.report.scores import Terms, seed_scores
from gill_lite.training.recipes import RECIPES

REPRODUCED = "reproduced"
WITHIN_NOISE = "same direction, within noise"
NOT_REPRODUCED = "not reproduced"
TOO_FEW = "too few"  # examples for any verdict
UNDEFINED = "undefined"  # no interval can be computed
NOT_RUN = "not run"
NO_STATISTIC = "no statistic"  # the claims file says why; not counted
FEWEST = 30  # examples of a verdict
FAMILY = "family_"  # so begin the tables of the systems around GILL
GILL = "arXiv:2305.17216"  # the paper whose claims are counted first
NOTHING = Interval(None, None, None, 0, NOT_RUN)
COLUMNS = ["id", "table", "statement", "source", "statistic"]
SUM = r"[+-]?\s*\w+/\w+(?:\s*[+-]\s*\w+/\w+)*"
BOUND = re.compile(rf"({SUM})(?:\s+per\s+({SUM}))?\s*([<>])\s*(-?\d+\.?\d*)")
TERM = re.compile(r"([+-]?)\s*(\w+)/(\w+)")


class Bound(NamedTuple):
    """A signed sum of cells, or its share of another sum, on one side of a threshold."""

    terms: tuple[tuple[int, str, str], ...]  # sign, method, context
    per: tuple[tuple[int, str, str], ...]  # of the yardstick; empty: the sum itself counts
    side: str  # ">" or "<"
    threshold: float

    def interval(
        self, frame: pd.DataFrame, metric: str, learned: Collection[str] = RECIPES
    ) -> Interval:
        """Over stories and seeds of the joints; of a share, over the stories of both sums."""
        if metric not in frame.columns:
            return NOTHING
        if self.per:
            return self.share(lambda terms: _resampled(frame, metric, terms, learned))
        found = difference(frame, metric, self.terms, learned)
        return found if found.n else NOTHING

    def share(self, resampled: Callable[[Terms], Resampled | None]) -> Interval:
        """The interval of a share, from what resamples a signed sum of cells."""
        sums = [resampled(terms) for terms in (self.terms, self.per)]
        above, below = sums
        return ratio_interval(above, below) if above and below else NOTHING


def _resampled(frame: pd.DataFrame, metric: str, terms: Terms, learned) -> Resampled | None:
    scores = seed_scores(frame, metric, terms)
    if not scores or not (count := len(next(iter(scores.values())))):
        return None
    return resample({m: part_of(values) for m, values in scores.items()}, count, learned)


@dataclass(frozen=True)
class Statistic:
    """Bounds on sums of cells of one metric; the claim holds if all of them do."""

    metric: str
    bounds: tuple[Bound, ...]
    text: str  # as the file has it

    @classmethod
    def read(cls, text: str) -> "Statistic":
        """Read `metric: a/b - c/d > 0; a/b - e/f per a/b - c/d < 0.25`, or `none: the reason`.

        Raises GillError showing what it could not read.
        """
        metric, colon, rest = text.strip().partition(":")
        if metric == "none" and rest.strip():
            return cls("", (), text.strip())
        found = [BOUND.fullmatch(part.strip()) for part in rest.split(";")]
        if not re.fullmatch(r"\w+", metric) or not colon or not all(found):
            raise GillError(
                f"cannot read the statistic '{text}'; it must look like "
                "'clip_similarity: gill/captions5 - sd/captions5 > 0'"
            )
        bounds = [Bound(_terms(one[1]), _terms(one[2] or ""), one[3], float(one[4]))
                  for one in found if one]  # fmt: skip
        return cls(metric, tuple(bounds), text.strip())

    @property
    def methods(self) -> set[str]:
        """Those whose cells it reads."""
        return {method for b in self.bounds for _, method, _ in (*b.terms, *b.per)}


def _terms(text: str) -> tuple[tuple[int, str, str], ...]:
    return tuple((-1 if sign == "-" else 1, m, c) for sign, m, c in TERM.findall(text))


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
    """The one rule, from the interval of a bound.

    Reproduced: the whole interval lies on the claimed side of the threshold. Same direction,
    within noise: the mean does, the interval does not, or some joints have a single seed.
    Otherwise not reproduced. Fewer than 30 examples are too few for any of these. Without
    scores: not run; where the scores allow no interval: undefined.
    """
    if side not in ("<", ">"):
        raise GillError(f"the side of a claim is '<' or '>', not {side!r}")
    if interval.mean is None:
        return NOT_RUN
    if interval.n < FEWEST:
        return TOO_FEW
    if interval.low is None or interval.high is None:
        return UNDEFINED
    sign = 1 if side == ">" else -1
    ends = (sign * (interval.low - threshold), sign * (interval.high - threshold))
    if min(ends) > 0 and interval.seeds != 1:
        return REPRODUCED
    return WITHIN_NOISE if sign * (interval.mean - threshold) > 0 else NOT_REPRODUCED


ORDER = (NOT_RUN, UNDEFINED, TOO_FEW, NOT_REPRODUCED, WITHIN_NOISE, REPRODUCED)  # worst first
Measured = dict[str, Callable[[Bound], Interval]]  # metrics that single examples don't have


def judge(
    claim: Claim, frame: pd.DataFrame, measured: Measured | None = None,
    learned: Collection[str] = RECIPES,
) -> dict:  # fmt: skip
    """The JSON row of a claim, judged from the long frame of scores (`scores.scores_frame`).

    Keys: id, statement, verdict, difference, low, high, n, undefined, seeds, source, statistic,
    bound (which of the statistic's the numbers are of), and bounds where there are several.
    measured: what computes a bound of a metric that is no mean over examples. learned: the methods
    that were trained with a seed.
    """
    metric = claim.statistic.metric
    compute = (measured or {}).get(metric, lambda bound: bound.interval(frame, metric, learned))
    return claim_row(claim, *map(compute, claim.statistic.bounds))


def claim_row(claim: Claim, *intervals: Interval) -> dict:
    """A claim as results files hold it, from the interval of each bound of its statistic.

    The claim is judged by its weakest bound, whose numbers the row shows: the one of the worst
    verdict, and of these the one whose interval comes nearest to the other side. Where there are
    several, `bounds` has the intervals of all.
    """
    bounds = claim.statistic.bounds
    told = [verdict(found, bound.side, bound.threshold)
            for found, bound in zip(intervals, bounds, strict=True)]  # fmt: skip
    weakest = min(range(len(bounds)), default=None, key=lambda i: (
        ORDER.index(told[i]), _room(intervals[i], bounds[i])))  # fmt: skip
    found = asdict(NOTHING if weakest is None else intervals[weakest])
    several = {"bounds": [asdict(one) for one in intervals]} if len(bounds) > 1 else {}
    return {"id": claim.id, "statement": claim.statement,
            "verdict": NO_STATISTIC if weakest is None else told[weakest],
            "difference": found.pop("mean"), **found, "source": claim.source,
            "statistic": claim.statistic.text, "bound": weakest, **several}  # fmt: skip


def _room(interval: Interval, bound: Bound) -> float:
    """How far the interval's nearer end lies on the claimed side."""
    end = interval.low if bound.side == ">" else interval.high
    sign = 1 if bound.side == ">" else -1
    return 0.0 if end is None else sign * (end - bound.threshold)


def judged_anew(claim: Claim, row: dict) -> dict:
    """The row of a claim from that of a results file: the verdict follows from its intervals.

    A row that another statistic decided says nothing about this one: not run.
    """
    count = len(claim.statistic.bounds)
    kept = row.get("bounds") or [row] * count
    if row["statistic"] != claim.statistic.text:
        return claim_row(claim, *[NOTHING] * count)
    return claim_row(claim, *map(Interval.of, kept))


def all_verdicts(results: Iterable[dict], claims: Iterable[Claim] | None = None) -> list[dict]:
    """A row for every claim there is, judged from the content of results files.

    A claim that no file has is not run; claims of other papers are left out without their table.
    Keys: table, and those of `claim_row`.
    """
    results = list(results)
    found = {row["id"]: row for result in results for row in result["verdicts"]}
    there = {result.get("topic") for result in results}
    rows = []
    for claim in read_claims() if claims is None else claims:
        about = {"table": claim.table, "source": claim.source}
        if of_others(about) and claim.table not in there:
            continue
        row = found.get(claim.id, {"statistic": NOT_RUN})
        rows.append({"table": claim.table, **judged_anew(claim, row)})
    return rows


def count_text(rows: list[dict]) -> str:
    """ "8 of 21 claims reproduced; 2 same direction, within noise; 11 not reproduced."

    Claims without a statistic are not among them; they are named last. Claims of other papers,
    where there are any among the rows, are counted apart.
    """
    apart = [row for row in rows if of_others(row)]
    if 0 < len(apart) < len(rows):
        own = [row for row in rows if row not in apart]
        return f"{count_text(own)} Of other papers: {count_text(apart)}"
    counts = Counter(row["verdict"] for row in rows)
    order = (WITHIN_NOISE, NOT_REPRODUCED, TOO_FEW, UNDEFINED, NOT_RUN)
    others = [f"{counts[name]} {name}" for name in order if counts[name]]
    judged = len(rows) - counts[NO_STATISTIC]
    if without := counts[NO_STATISTIC]:
        others.append(f"{without} more {'has' if without == 1 else 'have'} no statistic here")
    return "; ".join([f"{counts[REPRODUCED]} of {judged} claims reproduced", *others]) + "."


def of_others(row: dict) -> bool:
    """Whether the claim of a row from `all_verdicts` is another paper's than GILL's."""
    return row.get("table", "").startswith(FAMILY) and GILL not in row.get("source", "")


def verdicts_frame(rows: list[dict]) -> pd.DataFrame:
    """The verdicts as text, from `judge` or a results file; why there is none, where there is."""
    shown = [
        (row["statement"], row["statistic"] if row["verdict"] == NO_STATISTIC else
         str(Interval.of(row)), row["verdict"]) for row in rows
    ]  # fmt: skip
    return pd.DataFrame(shown, columns=["the paper says", "our difference", "verdict"])
