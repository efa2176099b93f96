"""Retrieve or generate? A linear classifier on the first [IMG] state (paper §3.3).

Class 0 is generate ("gen"), class 1 is retrieve ("ret"), as in the official checkpoint.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from gill_lite.errors import GillError
from gill_lite.files import refuse_pointer, write_bytes

CLASSES = ("gen", "ret")
DECISION = "decision.safetensors"  # in a folder of ours


class Decision(NamedTuple):
    """Answers of the classifier for B prompts."""

    answers: list[str]  # B times "gen" or "ret"
    probabilities: np.ndarray  # (B, 2), of generate and retrieve


class LinearDecision:
    """logits = features @ weight.T + bias, two classes."""

    def __init__(self, weight, bias):
        """weight (2, D), bias (2,). Raises GillError for other shapes."""
        self.weight = np.asarray(weight, dtype=np.float32)
        self.bias = np.asarray(bias, dtype=np.float32)
        if self.weight.ndim != 2 or len(self.weight) != 2 or self.bias.shape != (2,):
            raise GillError(
                f"a decision classifier has weight (2, D) and bias (2,), not "
                f"{self.weight.shape} and {self.bias.shape}"
            )

    @classmethod
    def fit(cls, features, labels, regularisation: float = 0.1) -> "LinearDecision":
        """Fit a logistic regression to features (B, D) and B labels "gen" or "ret".

        regularisation: scikit-learn's C (smaller is simpler) on standardised features; the
        standardisation is folded into the weights. Raises GillError unless both labels occur.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        features, labels = np.asarray(features, dtype=np.float64), list(labels)
        if features.ndim != 2 or len(features) != len(labels) or set(labels) != set(CLASSES):
            raise GillError(
                f"the decision needs features (B, D) and B labels with both 'gen' and 'ret'; got "
                f"shape {features.shape} and {len(labels)} labels of {sorted(set(labels))}"
            )
        scaler = StandardScaler().fit(features)
        model = LogisticRegression(C=regularisation, max_iter=1_000)
        model.fit(scaler.transform(features), [CLASSES.index(label) for label in labels])
        direction = model.coef_[0] / scaler.scale_  # (D,)
        offset = model.intercept_[0] - scaler.mean_ @ direction
        return cls(np.stack([-direction / 2, direction / 2]), [-offset / 2, offset / 2])

    def decide(self, features) -> Decision:
        """Answer for features (B, D): the hidden state of the first [IMG] token."""
        features = np.asarray(features, dtype=np.float32)
        if features.ndim != 2 or features.shape[1] != self.weight.shape[1]:
            raise GillError(
                f"the decision classifier reads features (B, {self.weight.shape[1]}), "
                f"not {features.shape}"
            )
        logits = features @ self.weight.T + self.bias  # (B, 2)
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        return Decision([CLASSES[i] for i in logits.argmax(axis=1)], probabilities)

    def save(self, path) -> Path:
        """Write weight and bias as safetensors, atomically."""
        from safetensors.numpy import save

        return write_bytes(path, save({"weight": self.weight, "bias": self.bias}))

    @classmethod
    def load(cls, path) -> "LinearDecision":
        """Read what `save` wrote. Raises GillError naming a missing or broken file."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            tensors = load_file(path)
            return cls(tensors["weight"], tensors["bias"])
        except (OSError, SafetensorError, KeyError) as error:
            refuse_pointer(path)
            raise GillError(
                f"decision classifier {path} is missing or broken; restore or remove it"
            ) from error

    @classmethod
    def load_official(cls, path) -> "LinearDecision":
        """Read the official `decision_model.pth.tar` without running any pickled code.

        Raises GillError naming the file, and the tensors that are unknown or missing.
        """
        from gill_lite.model import official  # brings torch

        state = official.read_state(Path(path), "decision classifier")
        names = sorted(state)
        if names != ["1.bias", "1.weight"]:
            raise GillError(
                f"decision classifier {path} must hold 1.weight and 1.bias, it holds {names}"
            )
        return cls(state["1.weight"].float().numpy(), state["1.bias"].float().numpy())


def load_decision(directory) -> LinearDecision | None:
    """The classifier in a folder of ours or the official model's; None where there is none."""
    from gill_lite.model import official

    directory = Path(directory)
    if (directory / DECISION).is_file():
        return LinearDecision.load(directory / DECISION)
    if (directory / official.DECISION).is_file():
        return LinearDecision.load_official(directory / official.DECISION)
    return None
