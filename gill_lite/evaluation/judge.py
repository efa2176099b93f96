"""The networks that compare a drawn picture with the true one."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from gill_lite.answering.drawing import to_pil
from gill_lite.errors import GillError
from gill_lite.evaluation import metrics
from gill_lite.files import sha256
from gill_lite.world.probes import load_probes

METRICS = ("clip_similarity", "lpips", "attribute_accuracy")
LPIPS_SIZE = 256  # official evaluation: larger pictures are scaled down to so many pixels


class Judge:
    """CLIP, the perceptual network and the mini world's probes, for the metrics asked for."""

    def __init__(self, backbones, names: Sequence[str] = METRICS):
        """names: of METRICS. Raises GillError for another, or where LPIPS lacks its weights."""
        unknown = [name for name in names if name not in METRICS]
        if unknown:
            raise GillError(f"there is no metric '{unknown[0]}'; known are {', '.join(METRICS)}")
        self.names, self.processor = tuple(names), backbones.image_processor
        self.size = backbones.profile.image_size
        self.vision = _in_float32(backbones.vision)
        self.device = next(self.vision.parameters()).device
        if "attribute_accuracy" in names:
            self.probes = load_probes().to(self.device)
        if "lpips" in names:
            mini = backbones.profile.name == "mini"
            load = metrics.load_perceptual if mini else load_alexnet_lpips
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
        return metrics.lpips_distance(self.perceptual, drawn, true)

    def attributes(self, pictures: Tensor, scenes: Sequence) -> metrics.AttributeAccuracy:
        """Which attributes of pictures (B, 3, H, W) are right (mini world)."""
        return metrics.attribute_accuracy(self.probes(pictures.to(self.device)), scenes)


def resized(pictures: Tensor, size: int) -> Tensor:
    """Pictures (B, 3, H, W) squashed to (B, 3, size, size); of that size they stay untouched."""
    if pictures.shape[-2:] == (size, size):
        return pictures
    scaled = F.interpolate(pictures, (size, size), mode="bilinear", antialias=True)
    return scaled.clamp(0, 1)


def _in_float32(vision: torch.nn.Module) -> torch.nn.Module:
    """CLIP as the metric runs it, whatever dtype the models run in."""
    import copy

    if next(vision.parameters()).dtype == torch.float32:
        return vision
    return copy.deepcopy(vision).float()


def load_alexnet_lpips():
    """The real LPIPS v0.1: the package's heads over torchvision's AlexNet, in evaluation mode.

    Raises GillError where the AlexNet is neither at hand nor to be had.
    """
    import warnings

    import lpips

    weights = _alexnet_weights()
    with warnings.catch_warnings():  # the package calls torchvision the old way
        warnings.simplefilter("ignore", UserWarning)
        metric = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    for name, value in metric.net.named_parameters():  # slice2.3.weight is features.3.weight
        value.data.copy_(weights[f"features.{name.split('.', 1)[1]}"])
    return metric.eval().requires_grad_(False)


def _alexnet_weights() -> dict:
    """torchvision's AlexNet from its cache, or downloaded into it."""
    from torchvision.models import AlexNet_Weights

    url = AlexNet_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    mend = f"put {url} at {path}, or leave LPIPS out with --metrics clip_similarity"
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if not path.is_file():
        if offline:
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
