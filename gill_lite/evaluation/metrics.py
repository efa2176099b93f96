"""Scores of single examples, and the networks that give them: CLIP, LPIPS, the world's probes.

Every score function returns one number an example, because intervals are bootstrapped over
examples (stories); see `report.intervals`.
"""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gill_lite.answering.drawing import to_pil
from gill_lite.errors import GillError
from gill_lite.files import sha256, shipped
from gill_lite.world.probes import load_probes
from gill_lite.world.scene import ATTRIBUTES, Scene

FRECHET_BATCH = 64  # of features that torchmetrics adds up at a time
LPIPS_SIZE = 256  # official evaluation: larger pictures are scaled down to so many pixels


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


def lpips_distance(module, images: Tensor, reference_images: Tensor) -> np.ndarray:
    """LPIPS of RGB images in [0, 1], (N, 3, H, W) and the same -> (N,); lower is nearer.

    module: a `lpips.LPIPS`. Raises GillError where shapes differ or pixels leave [0, 1].
    """
    if images.shape != reference_images.shape or images.ndim != 4 or images.shape[1] != 3:
        raise GillError(
            f"LPIPS compares (N, 3, H, W) with the same, got {tuple(images.shape)} and "
            f"{tuple(reference_images.shape)}"
        )
    if not len(images):
        return np.empty(0)
    pair = (images, reference_images)
    if not all(batch.min() >= 0 and batch.max() <= 1 for batch in pair):
        raise GillError("LPIPS reads pixels in [0, 1]; scale the images first")
    with torch.inference_mode():
        distances = module(*(batch * 2 - 1 for batch in pair))  # lpips reads [-1, 1]
    return distances.flatten().float().cpu().numpy().astype(np.float64)  # (N,)


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


def frechet_distance(features: Tensor, true: Tensor) -> float:
    """Fréchet distance of two sets of features (N, P), by torchmetrics.

    Raises GillError for fewer than two on either side.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    if min(len(features), len(true)) < 2:
        raise GillError("the Fréchet distance needs at least two pictures on each side")
    network = torch.nn.Identity()  # they are features already
    network.num_features = features.shape[1]
    metric = FrechetInceptionDistance(feature=network, normalize=True).to(features.device)
    metric.set_dtype(torch.float64)
    with torch.inference_mode():
        for rows, real in ((true, True), (features, False)):
            for batch in rows.split(FRECHET_BATCH):
                metric.update(batch, real=real)
        return float(metric.compute())


def _matrix(values) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


# ---- the networks ------------------------------------------------------------------------


class Judge:
    """CLIP, the perceptual network and the mini world's probes, for the metrics asked for."""

    def __init__(self, backbones, names: Sequence[str]):
        """names: of `numbers.METRICS`. Raises GillError where LPIPS lacks its weights."""
        self.processor = backbones.image_processor
        self.size = backbones.profile.image_size
        self.vision = _in_float32(backbones.vision)
        self.device = next(self.vision.parameters()).device
        if "attribute_accuracy" in names:
            self.probes = load_probes().to(self.device)
        if "lpips" in names:
            load = load_perceptual if backbones.profile.name == "mini" else load_alexnet_lpips
            self.perceptual = load().to(self.device)

    @torch.no_grad()
    def features(self, pictures: Sequence[Tensor]) -> Tensor:
        """CLIP's image embeddings (B, P) of pictures (3, H, W) in 0..1, of any sizes.

        Pictures of CLIP's own size are read as they are. Others go through CLIP's processor as
        8-bit images, as officially: the short side scaled, the middle cut out.
        """
        pixels = torch.stack([self._pixel_values(picture) for picture in pictures])
        pooled = self.vision.vision_model(pixel_values=pixels.to(self.device)).pooler_output
        return self.vision.visual_projection(pooled).float().cpu()

    def _pixel_values(self, picture: Tensor) -> Tensor:
        if picture.shape[1:] != (self.size, self.size):
            image = to_pil(picture)
            return self.processor(images=[image], return_tensors="pt").pixel_values[0]
        mean = torch.tensor(self.processor.image_mean).view(-1, 1, 1)
        std = torch.tensor(self.processor.image_std).view(-1, 1, 1)
        return (picture - mean) / std

    def lpips(self, pictures: Tensor, real: Sequence[Tensor]):
        """LPIPS (B,) of pictures (B, 3, H, W) and true pictures (3, H', W'), all in 0..1.

        Compared at the size of the drawn ones, at most 256 x 256.
        """
        size = min(pictures.shape[-1], LPIPS_SIZE)
        drawn, true = resized(pictures, size), torch.cat([resized(r[None], size) for r in real])
        drawn, true = drawn.to(self.device), true.to(self.device)
        return lpips_distance(self.perceptual, drawn, true)

    def attributes(self, pictures: Tensor, scenes: Sequence) -> AttributeAccuracy:
        """Which attributes of pictures (B, 3, H, W) are right (mini world)."""
        return attribute_accuracy(self.probes(pictures.to(self.device)), scenes)


def resized(pictures: Tensor, size: int) -> Tensor:
    """Pictures (B, 3, H, W) squashed to (B, 3, size, size); of that size they stay untouched."""
    if pictures.shape[-2:] == (size, size):
        return pictures
    scaled = F.interpolate(pictures, (size, size), mode="bilinear", antialias=True)
    return scaled.clamp(0, 1)


def _in_float32(vision: torch.nn.Module) -> torch.nn.Module:
    """CLIP as the metric runs it, whatever dtype the models run in."""
    if next(vision.parameters()).dtype == torch.float32:
        return vision
    return copy.deepcopy(vision).float()


def load_perceptual():
    """lpips.LPIPS over the trunk trained in the mini world.

    The package's heads were fitted to an ImageNet trunk, so it runs in its own unweighted mode.
    """
    from safetensors.torch import load_file

    return _lpips(load_file(shipped("mini/trunk") / "model.safetensors"), heads=False)


def load_alexnet_lpips():
    """The real LPIPS v0.1: the package's heads over torchvision's AlexNet.

    Raises GillError where the AlexNet is neither at hand nor to be had.
    """
    weights = {name.removeprefix("features."): w for name, w in _alexnet_weights().items()}
    return _lpips(weights, heads=True)


def _lpips(weights: dict[str, Tensor], heads: bool):
    """The package's metric in evaluation mode, over a trunk of these weights, by layer."""
    import lpips

    with warnings.catch_warnings():  # the package calls torchvision the old way
        warnings.simplefilter("ignore", UserWarning)
        metric = lpips.LPIPS(net="alex", lpips=heads, pnet_rand=True, verbose=False)
    for name, value in metric.net.named_parameters():  # slice2.3.weight is layer 3's
        value.data.copy_(weights[name.split(".", 1)[1]])
    return metric.eval().requires_grad_(False)


def _alexnet_weights() -> dict:
    """torchvision's AlexNet from its cache, or downloaded into it."""
    from huggingface_hub import constants
    from torchvision.models import AlexNet_Weights

    url = AlexNet_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    mend = f"put {url} at {path}, or leave LPIPS out with --metrics clip_similarity"
    if not path.is_file():
        if constants.HF_HUB_OFFLINE:
            raise GillError(f"LPIPS needs torchvision's AlexNet, and HF_HUB_OFFLINE is set: {mend}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=False)
        except OSError as error:
            raise GillError(
                f"LPIPS needs torchvision's AlexNet, which cannot be had ({error}): {mend}"
            ) from error
    if not sha256(path).startswith(path.stem.rsplit("-", 1)[1]):
        raise GillError(f"{path} is not torchvision's AlexNet (sha256 differs): {mend}")
    return torch.load(path, map_location="cpu", weights_only=True)
