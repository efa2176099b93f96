"""Scores of single examples."""

import numpy as np
import pytest
import torch

from gill_lite.answering.drawing import example_seed
from gill_lite.errors import GillError
from gill_lite.evaluation.metrics import (
    attribute_accuracy,
    clip_similarity,
    lpips_distance,
    recall_at_k,
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


def test_lpips_is_given_pixels_from_minus_one_to_one():
    fake = FakePerceptual()
    black, white = torch.zeros(3, 3, 8, 8), torch.ones(3, 3, 8, 8)
    distances = lpips_distance(fake, black, white)
    np.testing.assert_allclose(distances, [4.0, 4.0, 4.0])
    assert fake.seen.shape == (3, 3, 8, 8) and (fake.seen == -1).all()
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
