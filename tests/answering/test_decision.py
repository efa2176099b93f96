"""Retrieve or generate: the linear classifier, and the official one."""

from pathlib import Path

import numpy as np
import pytest

from gill_lite.answering.decision import LinearDecision
from gill_lite.errors import GillError
from tests.helpers.places import RECORDINGS

ALIGNMENT, OFFICIAL = (
    RECORDINGS / "PartiPromptsAllDecisions_Alignment.tsv",
    RECORDINGS / "decision_model.pth.tar",
)


def clouds(n: int = 200, width: int = 6):
    """Two classes, apart along one direction; columns of very different scale."""
    rng = np.random.default_rng(0)
    labels = rng.choice(["gen", "ret"], n)
    features = rng.normal(size=(n, width))
    features[:, 2] += np.where(labels == "ret", 4.0, 0.0)
    return features * [1, 100, 0.01, 1, 1000, 1] + 5, list(labels)


def test_fit_separates_held_out_examples_and_agrees_with_scikit_learn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = clouds()
    model = LinearDecision.fit(features[:100], labels[:100])
    decision = model.decide(features[100:])
    assert np.mean(np.equal(labels[100:], decision.answers)) > 0.9
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    reference.fit(features[:100], labels[:100])
    np.testing.assert_allclose(
        decision.probabilities, reference.predict_proba(features[100:]), atol=2e-3
    )


def test_answers_follow_the_probabilities():
    decision = LinearDecision([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]).decide([[2, 1], [1, 3]])
    assert decision.answers == ["gen", "ret"]
    np.testing.assert_allclose(decision.probabilities.sum(axis=1), 1, rtol=1e-6)
    assert decision.probabilities[0, 0] == pytest.approx(1 / (1 + np.exp(-1)), rel=1e-5)


def test_saved_classifier_is_the_same(tmp_path):
    features, labels = clouds()
    model = LinearDecision.fit(features, labels)
    loaded = LinearDecision.load(model.save(tmp_path / "decision.safetensors"))
    np.testing.assert_array_equal(loaded.weight, model.weight)
    np.testing.assert_array_equal(loaded.bias, model.bias)
    assert [path.name for path in tmp_path.iterdir()] == ["decision.safetensors"]


def test_official_classifier_is_read():
    import torch

    model = LinearDecision.load_official(OFFICIAL)
    state = torch.load(OFFICIAL, map_location="cpu", weights_only=True)["state_dict"]
    features = torch.randn(5, 4096, generator=torch.Generator().manual_seed(0))
    weight, bias = state["1.weight"].float(), state["1.bias"].float()
    expected = torch.nn.functional.linear(features, weight, bias)
    decision = model.decide(features.numpy())
    np.testing.assert_allclose(decision.probabilities, expected.softmax(-1).numpy(), atol=1e-5)
    assert decision.answers == [("gen", "ret")[i] for i in expected.argmax(-1)]


def test_bad_classifiers_are_refused(tmp_path):
    import torch

    torch.save({"state_dict": {"0.weight": torch.ones(2, 3)}}, tmp_path / "other.pth.tar")
    with pytest.raises(GillError, match=r"other.pth.tar must hold .* it holds \['0.weight'\]"):
        LinearDecision.load_official(tmp_path / "other.pth.tar")
    torch.save({"state_dict": Path("x")}, tmp_path / "code.pth.tar")  # a pickled object
    with pytest.raises(GillError, match="code.pth.tar is no weight file"):
        LinearDecision.load_official(tmp_path / "code.pth.tar")
    with pytest.raises(GillError, match="gone.safetensors is missing"):
        LinearDecision.load(tmp_path / "gone.safetensors")
    with pytest.raises(GillError, match="weight"):
        LinearDecision(np.ones((3, 4)), np.ones(3))
    with pytest.raises(GillError, match=r"features \(B, 2\)"):
        LinearDecision(np.ones((2, 2)), np.ones(2)).decide(np.ones((1, 5)))
    with pytest.raises(GillError, match="both 'gen' and 'ret'"):
        LinearDecision.fit(np.ones((3, 2)), ["gen"] * 3)
