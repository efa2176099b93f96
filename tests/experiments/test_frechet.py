"""The Fréchet distance of a table's pictures: known cases, intervals, and what it decides."""

import statistics

import pytest
import torch
from scipy.stats import t

from gill_lite.errors import GillError
from gill_lite.evaluation.evaluate import Evaluation
from gill_lite.evaluation.metrics import frechet_distance
from gill_lite.evaluation.tasks import CAPTIONS
from gill_lite.experiments import frechet
from gill_lite.experiments.frechet import Frechet, cell_features
from gill_lite.report import claims
from gill_lite.report.claims import Claim, Statistic
from tests.helpers import tiny_evaluation

WIDTH = 3


def gaussian(count: int, seed: int, mean: float = 0.0, spread: float = 1.0):
    """Features (N, P)."""
    draw = torch.Generator().manual_seed(seed)
    return mean + spread * torch.randn(count, WIDTH, generator=draw, dtype=torch.float64)


def whitened(count: int, seed: int):
    """Features whose sample mean is 0 and whose sample covariance is 1, to rounding."""
    x = gaussian(count, seed)
    x = x - x.mean(dim=0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov(), upper=True))


def fr(count: int) -> Frechet:
    """Two seeds of a near method, and a far one."""
    features = {
        ("near", "c", 0): gaussian(count, 1, 0.1),
        ("near", "c", 1): gaussian(count, 2, 0.2),
        ("far", "c", 0): gaussian(count, 3, 2.0),
    }
    return Frechet(features, gaussian(count, 0))


def test_the_distance_of_equal_sets_is_zero():
    x = gaussian(50, 0)
    assert abs(frechet_distance(x, x)) < 1e-6
    assert abs(frechet_distance(x, x[torch.randperm(50)])) < 1e-6, "a set has no order"
    with pytest.raises(GillError, match="at least two pictures"):
        frechet_distance(x[:1], x)


def test_the_distance_of_two_gaussians_is_the_known_one():
    true, drawn = whitened(200, 0), whitened(200, 1)
    scales, shift = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 0.0, -1.0])
    expected = (shift**2).sum() + ((scales - 1) ** 2).sum()  # of covariances that commute
    assert abs(frechet_distance(drawn * scales + shift, true) - expected) < 1e-6
    turned, _ = torch.linalg.qr(gaussian(WIDTH, 5))
    a, b = (x @ turned for x in (drawn * scales + shift, true))
    assert abs(frechet_distance(a, b) - expected) < 1e-6, "the axes do not matter"


def test_seeds_are_averaged_and_the_interval_lies_around_the_distance():
    found = fr(100)
    each = [frechet_distance(found.features["near", "c", seed], found.true) for seed in (0, 1)]
    interval = found.intervals()["near", "c"]
    assert abs(interval.mean - sum(each) / 2) < 1e-9
    assert interval.low < interval.mean < interval.high and interval.n == 100
    assert abs((interval.low + interval.high) / 2 - interval.mean) < 1e-9
    assert set(found.intervals()) == {("near", "c"), ("far", "c")}


def test_the_interval_by_hand():
    """A resample takes the same captions on both sides; only cells of the context count."""
    features = {("m", "a", 0): gaussian(20, 1), ("m", "b", 0): gaussian(20, 3, 1.0)}
    found = Frechet(features, gaussian(20, 0))
    drawn = [
        frechet_distance(features["m", "a", 0][rows], found.true[rows]) for rows in found.resamples
    ]
    interval = found.interval([(1, "m", "a")])
    half = t.ppf(0.975, 19) * statistics.stdev(drawn)
    assert abs(interval.low - (interval.mean - half)) < 1e-9
    assert abs(interval.high - (interval.mean + half)) < 1e-9


def test_seeds_that_differ_widen_the_interval():
    alike, apart = ({("gill", "c", seed): gaussian(60, 1, mean * seed) for seed in range(3)}
                    for mean in (0, 1))  # fmt: skip
    one, two = (Frechet(f, gaussian(60, 0)).intervals()["gill", "c"] for f in (alike, apart))
    assert one.seeds == two.seeds == 3
    assert two.high - two.low > 3 * (one.high - one.low)


def test_the_interval_shrinks_with_the_number_of_captions():
    widths = [i.high - i.low for i in (fr(n).intervals()["far", "c"] for n in (40, 400))]
    assert 0 < widths[1] < 0.6 * widths[0]


def test_resamples_are_paired_and_the_same_in_every_run():
    one, two = fr(60), fr(60)
    assert one.intervals() == two.intervals()
    copies = {("a", "c", 0): gaussian(60, 1), ("b", "c", 0): gaussian(60, 1)}
    interval = Frechet(copies, gaussian(60, 0)).interval([(1, "a", "c"), (-1, "b", "c")])
    assert interval.mean == 0.0 and interval.undefined == "all scores are equal", "a copy"


def claim(text: str) -> Claim:
    return Claim("x", "mappers", "near is nearer", "nowhere", Statistic.read(text))


def test_claims_get_their_interval_and_verdict():
    import pandas as pd

    measured = {frechet.METRIC: fr(100).of_bound}
    empty = pd.DataFrame(columns=["example", "method", "context", "seed"])
    texts = ["fid: near/c - far/c < 0", "fid: far/c - near/c < 0", "fid: near/d - far/c < 0",
             "fid: near/c per far/c < 0.25", "fid: near/c per far/d < 0.25"]  # fmt: skip
    rows = [claims.judge(claim(text), empty, measured) for text in texts]
    expected = fr(100).interval([(1, "near", "c"), (-1, "far", "c")])
    assert rows[0]["difference"] == expected.mean and rows[0]["low"] == expected.low
    verdicts = [row["verdict"] for row in rows]
    assert verdicts == [claims.REPRODUCED, claims.NOT_REPRODUCED, claims.NOT_RUN,
                        claims.REPRODUCED, claims.NOT_RUN]  # fmt: skip
    assert rows[1]["difference"] == -expected.mean


def test_a_cell_that_was_not_run_is_undefined():
    interval = fr(20).interval([(1, "near", "c"), (-1, "near", "elsewhere")])
    assert str(interval) == "undefined (not run)"
    assert interval.n == 0 and interval.low is None


def test_features_are_those_of_the_pictures_and_of_the_true_ones(tmp_path):
    drawers = tiny_evaluation.models((0, 1))
    scorer = tiny_evaluation.scorer(CAPTIONS, tmp_path, count=3, drawers=drawers)
    table = tiny_evaluation.table_of(CAPTIONS)
    evaluation = Evaluation(table, scorer.dataset, drawers, scorer, (0, 1), {}, tmp_path, 2)
    features, true = cell_features(evaluation, progress=False)
    context = "single_caption"
    assert set(features) == {("sd", context, 0), ("gill", context, 0), ("gill", context, 1)}
    for cell, found in features.items():
        drawn = [scorer.draw([item])[0] for item in evaluation.items([cell])]
        assert torch.allclose(found, scorer.judge.features(drawn), atol=1e-5), cell
    truths = [scorer.truth(example) for example in scorer.dataset.examples]
    assert torch.equal(true, torch.stack([scorer.judge.features([t])[0] for t in truths]))
