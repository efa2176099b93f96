"""Means over examples and their bootstrap intervals, paired where two methods are compared.

Where a number cannot be had, an `Interval` says so and why; nothing returns NaN.
"""

from dataclasses import dataclass

import numpy as np

from gill_lite.errors import GillError

CONFIDENCE = 0.95
RESAMPLES = 9_999


@dataclass(frozen=True)
class Interval:
    """A mean over n examples and its bootstrap interval. `undefined` says why one is lacking."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    undefined: str = ""

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
        return cls(mean, row["low"], row["high"], row["n"], row["undefined"])


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
    """Mean of scores (S,) or (S, J) with a bootstrap interval over the S stories (BCa).

    The resampling is seeded: the same scores give the same interval.
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
    """Mean difference `scores` - `other` with a paired bootstrap interval over stories."""
    return mean_interval(paired_differences(scores, other), confidence)
