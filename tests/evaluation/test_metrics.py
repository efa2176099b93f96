"""Scores of single examples and bootstrap intervals over them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gill_lite.answering.drawing import example_seed
from gill_lite.errors import GillError
from gill_lite.evaluation.metrics import (
    Interval,
    attribute_accuracy,
    clip_similarity,
    frechet_distance,
    lpips_distance,
    mean_interval,
    paired_differences,
    paired_interval,
    recall_at_k,
    story_means,
)
from gill_lite.world.scene import ATTRIBUTES, rng_for, sample_scene


def test_example_seed_is_fixed_for_ever_and_fits_torch():
    # sha256("0/30000"), first eight bytes, little endian, halved: other machines must agree
    import hashlib

    digest = hashlib.sha256(b"0/30000").digest()
    assert example_seed(0, "30000") == int.from_bytes(digest[:8], "little") // 2
    seeds = {example_seed(run, str(i)) for run in range(3) for i in range(500)}
    assert len(seeds) == 1500
    for seed in seeds:
        torch.Generator().manual_seed(seed)


def test_clip_similarity_is_the_cosine_of_each_row():
    a = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    b = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    np.testing.assert_allclose(clip_similarity(a, b), [1, 2**-0.5, -1], atol=1e-12)
    assert clip_similarity(np.empty((0, 4)), np.empty((0, 4))).shape == (0,)
    with pytest.raises(GillError, match="row 1"):
        clip_similarity(torch.tensor([[1.0], [0.0]]), torch.ones(2, 1))
    with pytest.raises(GillError, match="row 0"):
        clip_similarity(torch.tensor([[torch.nan]]), torch.ones(1, 1))
    with pytest.raises(GillError, match="compares"):
        clip_similarity(torch.ones(2, 3), torch.ones(3, 3))


class FakePerceptual(torch.nn.Module):
    """Mean squared difference, and a record of what it was shown."""

    def forward(self, a, b):
        self.seen = a
        return ((a - b) ** 2).mean(dim=(1, 2, 3), keepdim=True)  # (N, 1, 1, 1), as lpips does


def test_lpips_is_given_pixels_from_minus_one_to_one_at_the_size_asked_for():
    fake = FakePerceptual()
    black, white = torch.zeros(3, 3, 8, 8), torch.ones(3, 3, 8, 8)
    distances = lpips_distance(fake, black, white, size=16)
    np.testing.assert_allclose(distances, [4.0, 4.0, 4.0])
    assert fake.seen.shape == (3, 3, 16, 16) and (fake.seen == -1).all()
    assert lpips_distance(fake, black[:0], white[:0]).shape == (0,)
    with pytest.raises(GillError, match=r"\[0, 1\]"):
        lpips_distance(fake, black, white * 255)
    with pytest.raises(GillError, match="compares"):
        lpips_distance(fake, black, white[:2])


def test_lpips_of_the_real_package_orders_distances():
    import lpips

    torch.manual_seed(0)
    module = lpips.LPIPS(pretrained=False, pnet_rand=True, net="squeeze", verbose=False).eval()
    images = torch.rand(2, 3, 64, 64)
    same = lpips_distance(module, images, images)
    other = lpips_distance(module, images, images.flip(0))
    np.testing.assert_allclose(same, 0, atol=1e-6)
    assert (np.abs(other) > 1e-4).all()


def perfect_logits(scenes):
    labels = np.array([scene.labels() for scene in scenes])  # (N, 6)
    return {
        name: torch.nn.functional.one_hot(torch.tensor(labels[:, i]), len(values)).float()
        for i, (name, values) in enumerate(ATTRIBUTES.items())
    }


def test_attribute_accuracy_counts_each_attribute():
    scenes = [sample_scene(rng_for("metrics", i)) for i in range(20)]
    logits = perfect_logits(scenes)
    assert attribute_accuracy(logits, scenes).mean.tolist() == [1.0] * 20
    logits["color"] = -logits["color"]  # the largest logit is now a wrong colour
    spoilt = attribute_accuracy(logits, scenes)
    assert spoilt.per_attribute["color"].sum() == 0
    assert all(spoilt.per_attribute[n].mean() == 1 for n in ATTRIBUTES if n != "color")
    np.testing.assert_allclose(spoilt.mean, 5 / 6)


def test_attribute_accuracy_refuses_wrong_probes():
    scenes = [sample_scene(rng_for("metrics", i)) for i in range(3)]
    logits = perfect_logits(scenes)
    with pytest.raises(GillError, match="probe of 'shape'"):
        attribute_accuracy({"color": logits["color"]}, scenes)
    with pytest.raises(GillError, match="probe of 'shape' gave"):
        attribute_accuracy({**logits, "shape": logits["color"]}, scenes)


def test_recall_at_k():
    ranked = [["a", "b", "c"], ["b", "a"], []]
    assert recall_at_k(ranked, ["a", "a", "a"], 1).tolist() == [1, 0, 0]
    assert recall_at_k(ranked, ["a", "a", "a"], 2).tolist() == [1, 1, 0]
    assert recall_at_k([], [], 5).shape == (0,)
    with pytest.raises(GillError, match="recall@0"):
        recall_at_k(ranked, ["a"] * 3, 0)


def test_frechet_distance_of_known_gaussians():
    torch.manual_seed(0)

    def features(pixels):  # mean colour: three features
        return pixels.mean(dim=(2, 3))

    a = torch.rand(200, 3, 1, 1) * 0.5
    np.testing.assert_allclose(frechet_distance(features, a, a.clone()), 0, atol=1e-6)
    # same covariance, means apart by 0.25 in each of three colours
    np.testing.assert_allclose(frechet_distance(features, a + 0.25, a), 3 * 0.0625, atol=1e-4)
    with pytest.raises(GillError, match="two images"):
        frechet_distance(features, a[:1], a)


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
