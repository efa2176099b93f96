"""Rows of the benchmark table: timed by pytest-benchmark, kept in its JSON under `extra_info`."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Goal(NamedTuple):
    """What a row is meant to reach: one of the three kinds."""

    kind: str
    value: float

    def met(self, ours: float, reference: float | None) -> bool:
        """Whether the measures reach it."""
        if self.kind == "at most":
            return ours <= self.value
        if self.kind == "faster":
            return reference / ours >= self.value
        return ours / reference <= self.value  # "as long"


def faster(times: float) -> Goal:
    """The reference takes at least so many times as long as ours."""
    return Goal("faster", times)


def as_long(times: float) -> Goal:
    """Ours takes at most so many times as long, or as much, as the reference."""
    return Goal("as long", times)


def at_most(value: float) -> Goal:
    """Our number itself is no larger."""
    return Goal("at most", value)


def versus(
    benchmark, what: str, weights: str, ours: Callable, reference: Callable, goal: Goal | None,
    same: Callable, rounds: int = 5, warmup: int = 1,
) -> float:  # fmt: skip
    """Time both in turns, behind `warmup` runs that are not counted, and keep the medians.

    same: takes what both returned last and raises where they differ. A number counts only then.
    Returns the reference's seconds.
    """
    seconds, last = [], {}

    def reference_first() -> None:
        started = time.perf_counter()
        last["theirs"] = reference()
        seconds.append(time.perf_counter() - started)

    answer = benchmark.pedantic(ours, setup=reference_first, rounds=rounds, warmup_rounds=warmup)
    same(answer, last["theirs"])
    theirs = statistics.median(seconds[warmup:])
    keep(benchmark, what, weights, median(benchmark), goal, reference=theirs)
    return theirs


def median(benchmark) -> float:
    """Seconds of the middle round of what pytest-benchmark has timed."""
    return benchmark.stats.stats.median


def keep(
    benchmark, what: str, weights: str, ours: float, goal: Goal | None = None,
    unit: str = "s", reference: float | None = None,
) -> None:  # fmt: skip
    """Add a row to what pytest-benchmark writes down for this test."""
    row = {"what": what, "weights": weights, "unit": unit, "ours": ours, "reference": reference}
    row |= {"goal": goal and goal._asdict(), "met": goal and goal.met(ours, reference)}
    benchmark.extra_info.setdefault("rows", []).append(row)
