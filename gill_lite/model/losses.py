"""The objective: three losses, one equation one function each, and their weighted sum.

Axes: B batch, L prompt-embedding slots, E prompt-embedding width, P retrieval width, V
vocabulary with the [IMG] tokens.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gill_lite.model.tokens import IGNORE


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


def objective(
    passes, prompt_targets: Tensor, lm_loss_weight: float = 0.5, retrieval: Tensor | None = None
) -> Losses:
    """All losses of one batch from what `Gill.forward` gives (paper Sec. 3: the sum of all).

    `prompt_targets` (B, L, E) is the generator's own embedding of the captions.
    `lm_loss_weight` counts the LM loss of the [IMG] pass once for retrieval and once for
    generation, as the official three-pass form does. `retrieval` stands in for the InfoNCE of
    these pairs alone where they are compared with more. Joints that only retrieve have a
    generation loss of zero.
    """
    if retrieval is None:
        retrieval = retrieval_loss(passes.text, passes.image, passes.logit_scale)
    generation = torch.zeros_like(retrieval)
    if passes.prompt_embeds is not None:
        generation = generation_loss(passes.prompt_embeds, prompt_targets)
    return Losses.of(passes.captioning, passes.img_lm, retrieval, generation, lm_loss_weight)


def caption_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the next token, averaged over labelled positions (paper Eq. 1 and 2).

    `logits` (..., V) predict `targets` (...); targets equal to IGNORE are skipped.
    """
    logits, targets = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    return F.cross_entropy(_precise(logits), targets, ignore_index=IGNORE)


def retrieval_loss(text: Tensor, image: Tensor, logit_scale: Tensor) -> Tensor:
    """InfoNCE, mean of both directions (paper Sec. 3, retrieval).

    `text` and `image` (B, P) have unit length; pair i belongs together. `logit_scale` is
    the log of the inverse temperature, a learned scalar.
    """
    logits = logit_scale.exp() * _precise(text) @ _precise(image).T  # (B, B)
    own = torch.arange(len(logits), device=logits.device)  # (B,)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def generation_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Distance to the text encoder's output (paper Sec. 3, generation).

    The L2 norm (not its square, as in the official code) of each slot's difference, averaged
    over slots and batch. Both tensors are (B, L, E).
    """
    return torch.linalg.vector_norm(predicted - target, dim=-1).mean()


def _precise(values: Tensor) -> Tensor:
    """At least float32: a softmax over many thousands of numbers is too much for bfloat16."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def diffusion_loss(denoise, latents: Tensor, noise: Tensor, times: Tensor, alphas: Tensor):
    """Squared error of the velocity that `denoise(noisy, times)` says (Salimans and Ho 2022).

    `latents` and `noise` (B, C, h, w) are mixed as of `times` (B,); `alphas` are the schedule's
    cumulative products, one a time.
    """
    a = alphas.to(latents)[times].view(-1, 1, 1, 1)
    noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
    return F.mse_loss(denoise(noisy, times), a.sqrt() * noise - (1 - a).sqrt() * latents)
