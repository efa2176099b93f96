"""What a training step reads, and what its passes give: tensors by name.

Axes: B batch, T text positions, K visual tokens, R [IMG] tokens, L prompt-embedding slots,
D LM width, E prompt-embedding width, Dv CLIP's width. Rows are B, or B/2 when joined.
"""

from typing import NamedTuple

from torch import Tensor

from gill_lite.model.tokens import Captions


class Batch(NamedTuple):
    """One training batch: pair i is one image and its caption."""

    images: Tensor  # (B, 3, H, W) or (B, Dv)
    captions: Captions  # (B, T) and (B,)
    prompt_targets: Tensor  # (B, L, E): the generator's own embedding of the captions


class CaptioningPass(NamedTuple):
    """Visual tokens, then the caption the LM must say."""

    visual_tokens: Tensor  # (B, K, D)
    labels: Tensor  # (rows, positions)
    lm_loss: Tensor


class ImgPass(NamedTuple):
    """The caption, then the [IMG] tokens; read by retrieval and by generation."""

    hidden: Tensor  # (B, R, D)
    labels: Tensor  # (rows, positions)
    lm_loss: Tensor


class Losses(NamedTuple):
    """The parts of the objective and their weighted sum."""

    total: Tensor
    captioning: Tensor  # LM loss of the captioning pass
    img_lm: Tensor  # LM loss of the retrieval and generation pass
    retrieval: Tensor
    generation: Tensor

    @classmethod
    def of(cls, captioning, img_lm, retrieval, generation, lm_loss_weight: float) -> "Losses":
        """The parts and their sum; the [IMG] pass's LM loss counts for retrieval and generation."""
        total = captioning + 2 * lm_loss_weight * img_lm + retrieval + generation
        return cls(total, captioning, img_lm, retrieval, generation)
