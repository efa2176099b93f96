"""Bootstrap intervals over examples, and over seeds of the joints."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gill_lite.errors import GillError
from gill_lite.report.intervals import (
    Interval,
    Part,
    mean_interval,
    paired_differences,
    paired_interval,
    part_of,
    ratio_interval,
    resample,
    story_means,
    two_level_interval,
    within,
)


def made(rng, seeds: int, stories: int = 60, of_seeds: float = 0.03, mean: float = 0.5):
    """Scores (S, J): a story is hard or easy, joints are good or bad, and the rest is luck."""
    parts = rng.normal(0, 0.1, (stories, 1)), rng.normal(0, of_seeds, (1, seeds))
    return mean + sum(parts) + rng.normal(0, 0.05, (stories, seeds))


def covered(make, truth: float, times: int = 300) -> float:
    """Share of made-up data sets whose interval holds the truth."""
    rng = np.random.default_rng(0)
    found = [make(rng) for _ in range(times)]
    return float(np.mean([one.low <= truth <= one.high for one in found]))


@pytest.mark.parametrize(("seeds", "of_seeds"), [(3, 0.03), (5, 0.03), (3, 0.0), (5, 0.2)])
def test_intervals_over_stories_and_seeds_cover_what_they_say(seeds, of_seeds):
    share = covered(lambda rng: two_level_interval({"m": made(rng, seeds, of_seeds=of_seeds)}), 0.5)
    assert 0.92 <= share <= 0.99
    if of_seeds:
        alone = covered(lambda rng: _normal(made(rng, seeds, of_seeds=of_seeds).mean(axis=1)), 0.5)
        assert alone < 0.88, "stories alone know too little"


def _normal(means) -> Interval:
    half = 1.96 * means.std(ddof=1) / np.sqrt(len(means))
    return Interval(means.mean(), means.mean() - half, means.mean() + half, len(means))


def test_differences_of_methods_with_seeds_of_their_own_cover_too():
    def difference(rng) -> Interval:
        hard = rng.normal(0, 0.3, (60, 1))  # for both
        ours, theirs = hard + made(rng, 5), hard + made(rng, 3, mean=0.4)
        return two_level_interval({"gill": ours, "mlp": -theirs})

    assert 0.92 <= covered(difference, 0.1) <= 0.99


def test_a_share_covers_and_needs_a_yardstick():
    def share(rng, yardstick=0.2, of_seeds=0.03) -> Interval:
        above = made(rng, 1, of_seeds=0, mean=0.05)
        below = made(rng, 5, of_seeds=of_seeds, mean=yardstick)
        parts = {"sd": part_of(above)}, {"gill": part_of(below)}
        return ratio_interval(*(resample(part, 60, ["gill"]) for part in parts))

    assert 0.92 <= covered(share, 0.25) <= 0.99
    rng = np.random.default_rng(0)
    assert share(rng).seeds == 5
    for low in (0.0, -0.3):
        told = share(rng, low)
        assert told.low is None and told.undefined == "its yardstick is not clearly above 0"


def test_seeds_are_resampled_without_making_their_variance_small():
    by_seed = np.array([0.1, 0.5, 0.9])
    part = Part(by_seed, np.tile(by_seed, (2_000, 1)))
    found = resample({"gill": part}, 300, ["gill"])
    assert found.draws.var() == pytest.approx(by_seed.var(ddof=1) / 3, rel=0.1)
    assert found.seeds == 3 and found.freedom == pytest.approx(2, abs=0.2), "three seeds, no more"
    other = resample({"mlp": part}, 300, ["gill"])
    assert other.seeds == 0 and not np.allclose(other.draws, found.draws), "seeds of its own"
    two = resample({"gill": part, "mlp": part}, 300, ["gill"])
    assert two.draws.var() == pytest.approx(2 * found.draws.var(), rel=0.15)


def test_seeds_that_agree_leave_the_interval_of_the_stories():
    stories = np.random.default_rng(1).normal(0.5, 0.1, (60, 1))
    three, one = (two_level_interval({"m": stories.repeat(n, axis=1)}, ["m"]) for n in (3, 1))
    assert (three.seeds, one.seeds) == (3, 1)
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.1)
    assert replace(one, seeds=0) == mean_interval(stories[:, 0])
    assert two_level_interval({}).undefined == "no examples"


def test_the_mean_over_stories_is_over_all_their_seeds():
    seeds = np.random.default_rng(1).normal(0.5, 0.1, (60, 1)).repeat(3, axis=1)
    np.testing.assert_allclose(story_means(seeds + [[-0.1, 0.0, 0.1]]), seeds[:, 0])


def test_pairing_removes_what_stories_share():
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 1.0, 100)  # how hard a story is, for both methods
    ours, theirs = hard + 0.05 + rng.normal(0, 0.02, 100), hard + rng.normal(0, 0.02, 100)
    paired, alone = paired_interval(ours, theirs), mean_interval(ours)
    assert paired.low > 0.03 and paired.high < 0.07
    assert alone.high - alone.low > 5 * (paired.high - paired.low)


def test_interval_agrees_with_the_normal_one_and_covers():
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(40):
        scores = rng.normal(0.6, 0.1, 80)
        interval = mean_interval(scores)
        half = 1.96 * scores.std(ddof=1) / np.sqrt(80)
        assert abs(interval.high - interval.low - 2 * half) < 0.25 * 2 * half
        covered += interval.low <= 0.6 <= interval.high
    assert covered >= 33


def test_undefined_is_said_not_computed():
    assert str(mean_interval([])) == "undefined (no examples)"
    assert mean_interval([]).mean is None
    assert str(mean_interval([0.5])) == "0.500 [undefined: one example]"
    constant = mean_interval([0.25] * 10)
    assert constant == Interval(0.25, None, None, 10, "all scores are equal")
    assert paired_interval([0.1, 0.2, 0.3], [0.0, 0.1, 0.2]).undefined == "all scores are equal"
    with pytest.raises(GillError, match="example 1 is nan"):
        mean_interval([0.5, float("nan")])
    with pytest.raises(GillError, match="same stories"):
        paired_interval([1.0, 2.0], [1.0])
    with pytest.raises(GillError, match="shape"):
        mean_interval(np.ones((2, 2, 2)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=0, max_size=12))
def test_no_scores_at_all_give_a_nan(scores):
    interval = mean_interval(scores)
    numbers = [v for v in (interval.mean, interval.low, interval.high) if v is not None]
    assert np.isfinite(numbers).all()
    assert (interval.low is None) == bool(interval.undefined)
    if interval.low is not None:
        assert interval.low <= interval.mean + 1e-12 and interval.mean - 1e-12 <= interval.high


def test_one_seed_may_be_paired_with_three():
    differences = paired_differences([[0.4, 0.5, 0.6], [1.0, 1.0, 1.0]], [0.1, 0.2])
    np.testing.assert_allclose(differences, [0.4, 0.8])


def test_a_shares_interval_ends_where_shares_end():
    assert within(Interval(0.4, -0.5, 1.2, 3), 0, 1) == Interval(0.4, 0, 1, 3)
    assert within(Interval(0.4, 0.3, 0.5, 3), 0, 1) == Interval(0.4, 0.3, 0.5, 3)
    alone = Interval(0.4, None, None, 1, "one example")
    assert within(alone, 0, 1) == alone
