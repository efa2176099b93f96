"""Means over examples and their bootstrap intervals, paired where two methods are compared.

Stories are a sample, and so are the seeds of the joints: an interval that knows only one of the
two is too narrow. So both are resampled, the stories for all methods at once, the seeds for each.
Where a number cannot be had, an `Interval` says so and why; nothing returns NaN.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gill_lite.errors import GillError

CONFIDENCE = 0.95
RESAMPLES = 9_999
TWO_LEVEL = 2_000  # resamples of stories and seeds: they give a standard error, not percentiles


@dataclass(frozen=True)
class Interval:
    """A mean over n examples and its bootstrap interval. `undefined` says why one is lacking."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    undefined: str = ""
    seeds: int = 0  # the fewest seeds of joints behind any learned part; 0: nothing is learned

    def __str__(self) -> str:
        """ "0.612 [0.600, 0.624]", or "undefined (no examples)"."""
        if self.mean is None:
            return f"undefined ({self.undefined})"
        if self.low is None:
            return f"{self.mean:.3f} [undefined: {self.undefined}]"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @classmethod
    def of(cls, row: dict) -> "Interval":
        """From a JSON row of a table, or of a claim, which calls the mean its difference."""
        mean = row["difference"] if "difference" in row else row["mean"]
        seeds = row.get("seeds", 0)  # not in files of before they were resampled
        return cls(mean, row["low"], row["high"], row["n"], row["undefined"], seeds)


# ---- over stories alone ------------------------------------------------------------------


def story_means(scores) -> np.ndarray:
    """Scores (S,) or (S, J), one column a seed of the joints -> the mean of each story, (S,).

    Raises GillError where a score is NaN or infinite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim not in (1, 2) or (scores.ndim == 2 and scores.shape[1] == 0):
        raise GillError(f"scores must have shape (S,) or (S, J), not {scores.shape}")
    bad = np.argwhere(~np.isfinite(scores))
    if len(bad):
        raise GillError(f"score of example {bad[0][0]} is {scores[tuple(bad[0])]}, not a number")
    return scores.mean(axis=1) if scores.ndim == 2 else scores


def mean_interval(scores, confidence: float = CONFIDENCE) -> Interval:
    """Mean of scores (S,) or (S, J) with a bootstrap interval over the S stories alone (BCa).

    It knows nothing of other seeds of the joints; `two_level_interval` does. The resampling is
    seeded: the same scores give the same interval.
    """
    from scipy.stats import bootstrap

    means = story_means(scores)  # (S,)
    if len(means) == 0:
        return Interval(None, None, None, 0, "no examples")
    mean = float(means.mean())
    if len(means) == 1:
        return Interval(mean, None, None, 1, "one example")
    if np.ptp(means) <= 1e-12 * max(1.0, np.abs(means).max()):
        return Interval(mean, None, None, len(means), "all scores are equal")
    low, high = bootstrap(
        (means,), np.mean, n_resamples=RESAMPLES, batch=1_000, confidence_level=confidence,
        vectorized=True, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    if not np.isfinite([low, high]).all():
        return Interval(mean, None, None, len(means), "too few different scores")
    return Interval(mean, float(low), float(high), len(means))


def paired_differences(scores, other) -> np.ndarray:
    """Per story: mean over seeds of `scores` minus that of `other`. (S,)|(S, J) each -> (S,)."""
    a, b = story_means(scores), story_means(other)
    if a.shape != b.shape:
        raise GillError(f"paired scores must be of the same stories, got {len(a)} and {len(b)}")
    return a - b


def paired_interval(scores, other, confidence: float = CONFIDENCE) -> Interval:
    """Mean difference `scores` - `other` with a paired bootstrap interval over stories alone."""
    return mean_interval(paired_differences(scores, other), confidence)


# ---- over stories and seeds of the joints ------------------------------------------------


class Part(NamedTuple):
    """What one method gives to a number."""

    by_seed: np.ndarray  # (J,), with each seed of its joints
    draws: np.ndarray  # (R, J), the same in each resample of the stories


class Resampled(NamedTuple):
    """A number, what it becomes in resamples of stories and seeds, and what seeds vary of it."""

    value: float
    draws: np.ndarray  # (R,)
    seed_variances: tuple[tuple[float, int], ...]  # of each method with seeds; degrees of freedom
    n: int  # stories
    seeds: int

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the standard error (Welch and Satterthwaite): three seeds that
        differ much leave little more than two, seeds that agree as many as there are stories."""
        total = float(self.draws.var(ddof=1))
        of_seeds = sum(variance for variance, _ in self.seed_variances)
        parts = (*self.seed_variances, (max(total - of_seeds, 0.0), max(self.n - 1, 1)))
        lost = sum(variance**2 / free for variance, free in parts)
        return total**2 / lost if lost else np.inf  # nothing varies

    @property
    def quantile(self) -> float:
        """Standard errors to a side of the interval, by Student's t."""
        from scipy.stats import t

        return float(t.ppf((1 + CONFIDENCE) / 2, self.freedom))


@lru_cache(maxsize=4)
def story_weights(stories: int) -> np.ndarray:
    """How much each story counts in each resample, (R, S); the same for all methods: paired."""
    chances = np.full(stories, 1 / stories)
    return np.random.default_rng(0).multinomial(stories, chances, size=TWO_LEVEL) / stories


def seed_weights(method: str, seeds: int, resamples: int) -> np.ndarray:
    """How much each seed of a method counts in each resample, (R, J).

    J - 1 of J are drawn: J of J would show a variance too small by (J - 1) / J, a third with
    three seeds (Rao and Wu 1988). A single seed cannot be resampled.
    """
    if seeds == 1:
        return np.ones((resamples, 1))
    draw = np.random.default_rng([0, *method.encode()])
    return draw.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=resamples) / (seeds - 1)


def part_of(scores) -> Part:
    """The mean over stories of scores (S, J), with each seed."""
    scores = np.asarray(scores, dtype=np.float64)
    return Part(scores.mean(axis=0), story_weights(len(scores)) @ scores)


def resample(parts: dict[str, Part], n: int, learned: Collection[str] = ()) -> Resampled:
    """The sum over methods of each one's mean over seeds. learned: the methods that have joints;
    of others there is one, and no seed."""
    draws: np.ndarray = np.zeros(1)
    variances = []
    for method, (by_seed, drawn) in parts.items():
        count = len(by_seed)
        draws = draws + (drawn * seed_weights(method, count, len(drawn))).sum(axis=1)
        if count > 1:
            variances.append((float(by_seed.var(ddof=1)) / count, count - 1))
    value = sum(float(part.by_seed.mean()) for part in parts.values())
    fewest = min((len(part.by_seed) for m, part in parts.items() if m in learned), default=0)
    return Resampled(value, draws, tuple(variances), n, fewest)


def resampled_interval(number: Resampled) -> Interval:
    """The number plus and minus its standard error over the resamples, times Student's quantile.

    So few seeds have no percentiles: those of three cover the truth three times in four.
    """
    error = float(number.draws.std(ddof=1))
    if error <= 1e-12 * max(1.0, abs(number.value)):
        return Interval(number.value, None, None, number.n, "all scores are equal", number.seeds)
    half = number.quantile * error
    low, high = number.value - half, number.value + half
    return Interval(number.value, low, high, number.n, "", number.seeds)


def within(interval: Interval, least: float, most: float) -> Interval:
    """The part of an interval that a number of this range can lie in."""
    if interval.low is None or interval.high is None:
        return interval
    return replace(interval, low=max(interval.low, least), high=min(interval.high, most))


def ratio_interval(above: Resampled, below: Resampled) -> Interval:
    """above / below, and the ratios theta for which above - theta * below could be 0 (Fieller).

    Undefined where `below`, the yardstick, is not clearly above 0.
    """
    a, b, n = above.value, below.value, min(above.n, below.n)
    seeds = min(filter(None, (above.seeds, below.seeds)), default=0)
    square = max(above.quantile, below.quantile) ** 2
    (of_a, of_both), (_, of_b) = square * np.cov(above.draws, below.draws)
    first = b * b - of_b
    if b <= 0 or first <= 0:
        value = float(a / b) if b else 0.0
        return Interval(value, None, None, n, "its yardstick is not clearly above 0", seeds)
    middle = a * b - of_both
    root = np.sqrt(max(middle * middle - first * (a * a - of_a), 0.0))
    return Interval(float(a / b), float((middle - root) / first), float((middle + root) / first),
                    n, "", seeds)  # fmt: skip


def two_level_interval(scores: dict[str, np.ndarray], learned: Collection[str] = ()) -> Interval:
    """The mean of a sum of scores with an interval over stories and over seeds of the joints.

    scores: by method (S, J), what it adds to the sum, of the same S stories in each. learned: see
    `resample`. Where no method has more than one seed, the interval is over stories alone.
    """
    means = [story_means(part) for part in scores.values()]
    stories = np.sum(means, axis=0) if scores else np.empty(0)  # (S,)
    if len(stories) < 2 or all(part.shape[1] == 1 for part in scores.values()):
        return replace(mean_interval(stories), seeds=int(any(m in learned for m in scores)))
    parts = {method: part_of(part) for method, part in scores.items()}
    return resampled_interval(resample(parts, len(stories), learned))
