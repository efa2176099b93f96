"""Retrieve or generate? A linear classifier on the first [IMG] state (paper §3.3).

Class 0 is generate ("gen"), class 1 is retrieve ("ret"), as in the official checkpoint.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from gill_lite.datasets.partiprompts import Prompt, confident_label
from gill_lite.errors import GillError
from gill_lite.files import write_bytes

CLASSES = ("gen", "ret")
DECISION = "decision.safetensors"  # in a folder of ours
__all__ = ["CLASSES", "LinearDecision", "confident_label", "constant_macro_f1", "human_macro_f1",
           "labelled", "load_decision", "macro_f1"]  # fmt: skip


def labelled(prompts: list[Prompt]) -> list[Prompt]:
    """The prompts whose annotators agree: label `gen` or `ret`."""
    return [prompt for prompt in prompts if prompt.label in CLASSES]


def macro_f1(truth, answers) -> float | None:
    """Mean of the two classes' F1; None (undefined) for no examples."""
    from sklearn.metrics import f1_score

    truth, answers = list(truth), list(answers)
    if len(truth) != len(answers):
        raise GillError(f"macro F1 needs one answer a label, got {len(answers)} for {len(truth)}")
    if not truth:
        return None
    return float(f1_score(truth, answers, labels=CLASSES, average="macro", zero_division=0.0))


def constant_macro_f1(truth, answer: str) -> float | None:
    """What always answering `answer` would score."""
    return macro_f1(truth, [answer] * len(list(truth)))


def human_macro_f1(prompts: list[Prompt]) -> float:
    """Mean over the annotators of their macro F1 against the confident labels.

    An annotator's own `same` votes are dropped, and so are prompts they did not see. The
    label contains their vote, so this is generous to people.
    """
    prompts = labelled(prompts)
    annotators = max((len(prompt.votes) for prompt in prompts), default=0)
    if not annotators:
        raise GillError("human performance needs prompts that are labelled gen or ret")
    scores = []
    for annotator in range(annotators):
        voted = [p for p in prompts if annotator < len(p.votes) and p.votes[annotator] in CLASSES]
        scores.append(macro_f1([p.label for p in voted], [p.votes[annotator] for p in voted]))
    return float(np.mean([score for score in scores if score is not None]))


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
            raise GillError(f"decision classifier {path} is missing or broken") from error

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
