"""What BLIP and BLIP-2 share: contrast, and matching against the hardest mismatches."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def contrast_loss(cosines: Tensor, logit_scale: Tensor) -> Tensor:
    """InfoNCE, mean of both directions, of cosines (texts, pictures) whose diagonal is right."""
    logits = logit_scale.exp().clamp(max=100) * cosines.float()
    own = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


@torch.no_grad()
def hard_pairs(cosines: Tensor, logit_scale: Tensor, generator) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs to tell apart: text numbers, picture numbers (3B,) and whether they match.

    The B right pairs, then each text with a wrong picture, then each picture with a wrong text;
    the likelier two are confused, the more often they are drawn.
    """
    own = torch.arange(len(cosines))
    logits = (
        (logit_scale.exp() * cosines.float()).cpu().fill_diagonal_(-torch.inf)
    )  # (texts, pictures)
    pictures = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    texts = torch.multinomial(logits.T.softmax(1), 1, generator=generator)[:, 0]
    match = torch.cat([torch.ones_like(own), torch.zeros_like(own), torch.zeros_like(own)])
    return torch.cat([own, own, texts]), torch.cat([own, pictures, own]), match


def match_loss(logits: Tensor, match: Tensor) -> Tensor:
    """Cross-entropy of "match or not", logits (3B, 2); each kind of answer weighs the same."""
    weight = logits.new_tensor([0.5, 1.0])  # twice as many mismatches
    return cross_entropy(logits, match.to(logits.device), weight)
