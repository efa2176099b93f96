"""The three losses: one equation, one function.

Axes: B batch, L prompt-embedding slots, E prompt-embedding width, P retrieval width, V
vocabulary with the [IMG] tokens, N labelled positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gill_lite.model.tokens import IGNORE


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
