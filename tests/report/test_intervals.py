"""Bootstrap intervals over examples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gill_lite.errors import GillError
from gill_lite.report.intervals import (
    Interval,
    mean_interval,
    paired_differences,
    paired_interval,
    story_means,
)


def test_interval_of_seeds_is_over_stories_not_over_all_numbers():
    rng = np.random.default_rng(1)
    stories = rng.normal(0.5, 0.1, 60)
    seeds = np.stack([stories, stories, stories], axis=1)  # three seeds that agree
    assert mean_interval(seeds) == mean_interval(stories)
    np.testing.assert_allclose(story_means(seeds + [[-0.1, 0.0, 0.1]]), stories)


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
