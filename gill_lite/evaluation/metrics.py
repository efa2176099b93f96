"""Scores of single examples, and intervals over examples.

Every score function returns one number an example, because the intervals are bootstrapped
over examples (stories), paired where two methods are compared. Where a number cannot be
had, an `Interval` says so and why; nothing returns NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gill_lite.errors import GillError
from gill_lite.files import shipped
from gill_lite.world.scene import ATTRIBUTES, Scene

CONFIDENCE = 0.95
RESAMPLES = 9_999


# ---- scores: one number an example -------------------------------------------------------


def clip_similarity(features, reference_features) -> np.ndarray:
    """Cosine of CLIP image embeddings, (N, P) and (N, P) -> (N,), on [-1, 1]. Paper: CLIP ViT-L/14.

    Raises GillError where the shapes differ or an embedding has no direction.
    """
    a, b = _matrix(features), _matrix(reference_features)
    if a.shape != b.shape or a.ndim != 2:
        raise GillError(f"CLIP similarity compares (N, P) with (N, P), got {a.shape} and {b.shape}")
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)  # (N,)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(bad):
        raise GillError(f"CLIP similarity is undefined: row {bad[0]} has an embedding of length 0")
    return (a * b).sum(axis=1) / norms


def lpips_distance(module, images, reference_images, size: int | None = None) -> np.ndarray:
    """LPIPS of RGB images in [0, 1], (N, 3, H, W) and the same -> (N,); lower is nearer.

    module: a `lpips.LPIPS`. size: scale both to size x size first (the official evaluation
    takes 256). Raises GillError where shapes differ or pixels leave [0, 1].
    """
    import torch
    from torch.nn import functional as F

    if images.shape != reference_images.shape or images.ndim != 4 or images.shape[1] != 3:
        raise GillError(
            f"LPIPS compares (N, 3, H, W) with the same, got {tuple(images.shape)} and "
            f"{tuple(reference_images.shape)}"
        )
    if not len(images):
        return np.empty(0)
    pairs = []
    for batch in (images, reference_images):
        if not (batch.min() >= 0 and batch.max() <= 1):
            raise GillError("LPIPS reads pixels in [0, 1]; scale the images first")
        if size is not None:
            batch = F.interpolate(batch, (size, size), mode="bilinear", antialias=True)
        pairs.append(batch.clamp(0, 1) * 2 - 1)  # lpips reads [-1, 1]
    with torch.inference_mode():
        return module(*pairs).flatten().float().cpu().numpy().astype(np.float64)  # (N,)


def load_perceptual():
    """lpips.LPIPS over the trunk trained in the mini world.

    The package's heads were fitted to an ImageNet trunk, so it runs in its own unweighted mode.
    """
    import warnings

    import lpips
    from safetensors.torch import load_file

    with warnings.catch_warnings():  # the package calls torchvision the old way
        warnings.simplefilter("ignore", UserWarning)
        metric = lpips.LPIPS(net="alex", lpips=False, pnet_rand=True, verbose=False)
    weights = load_file(shipped("mini/trunk") / "model.safetensors")
    own = dict(metric.net.named_parameters())
    for name, value in own.items():
        value.data.copy_(weights[name.split(".", 1)[1]])  # slice2.3.weight is layer 3's
    return metric.eval().requires_grad_(False)


class AttributeAccuracy(NamedTuple):
    """Which attributes of N generated pictures are right (mini world only)."""

    mean: np.ndarray  # (N,), share of the six attributes
    per_attribute: dict[str, np.ndarray]  # name -> (N,) of 0.0 and 1.0


def attribute_accuracy(logits: dict, scenes: Sequence[Scene]) -> AttributeAccuracy:
    """Compare probes with scenes: logits maps each attribute to (N, its number of values).

    Raises GillError where an attribute is missing or a shape is wrong.
    """
    hits = {}
    for column, (name, values) in enumerate(ATTRIBUTES.items()):
        if name not in logits:
            raise GillError(f"attribute accuracy needs the probe of '{name}'; got {sorted(logits)}")
        scores = _matrix(logits[name])
        if scores.shape != (len(scenes), len(values)):
            raise GillError(
                f"the probe of '{name}' gave {scores.shape} for {len(scenes)} scenes and "
                f"{len(values)} values"
            )
        truth = np.array([scene.labels()[column] for scene in scenes], dtype=int)
        hits[name] = (scores.argmax(axis=1) == truth).astype(np.float64)
    return AttributeAccuracy(np.mean(list(hits.values()), axis=0), hits)


def recall_at_k(ranked_ids: Sequence[Sequence[str]], targets: Sequence[str], k: int) -> np.ndarray:
    """1.0 where the target is among the first k retrieved ids, else 0.0: (N,)."""
    if k < 1 or len(ranked_ids) != len(targets):
        raise GillError(
            f"recall@{k} needs k of at least 1 and one ranking a target, got {len(ranked_ids)} "
            f"rankings for {len(targets)} targets"
        )
    pairs = zip(ranked_ids, targets, strict=True)
    return np.array([float(target in list(ids)[:k]) for ids, target in pairs])


def frechet_distance(feature_network, images, reference_images, batch_size: int = 64) -> float:
    """Fréchet distance of two sets of images in [0, 1], (N, 3, H, W), by torchmetrics.

    feature_network: pixels (B, 3, H, W) -> features (B, F). Raises GillError for fewer than
    two images a side.
    """
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    if min(len(images), len(reference_images)) < 2:
        raise GillError("the Fréchet distance needs at least two images on each side")
    device = images.device

    class Features(torch.nn.Module):
        num_features = int(feature_network(images[:1]).shape[-1])

        def forward(self, pixels):
            return feature_network(pixels)

    metric = FrechetInceptionDistance(feature=Features(), normalize=True).to(device)
    metric.set_dtype(torch.float64)
    with torch.inference_mode():
        for batch_set, real in ((reference_images, True), (images, False)):
            for batch in batch_set.split(batch_size):
                metric.update(batch, real=real)
        return float(metric.compute())


# ---- intervals: over examples ------------------------------------------------------------


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


def _matrix(values) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
