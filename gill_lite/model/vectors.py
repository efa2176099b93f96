"""CLIP's shared space: texts and pictures as vectors of one length, sqrt(P).

So a number in them is about as large as a noise's, which diffusion over them wants. Axes: B
texts or pictures, T tokens, P the space's width, E the text tower's width, Dv the vision tower's.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Told(NamedTuple):
    """What CLIP's text half makes of texts."""

    vectors: Tensor  # (B, P)
    states: Tensor  # (B, T, E), T = 77
    mask: Tensor  # (B, T), 0 on padding


def of_length(vectors: Tensor) -> Tensor:
    """Vectors (B, P) scaled to length sqrt(P)."""
    return F.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5


@torch.no_grad()
def picture_vectors(clip, pooled: Tensor) -> Tensor:
    """CLIP's pooled output (B, Dv) of pictures as vectors (B, P)."""
    return of_length(clip.visual_projection(pooled.to(clip.visual_projection.weight))).float()


@torch.no_grad()
def read_texts(backbones, texts) -> Told:
    """Texts through CLIP's text half, 77 tokens each; what is longer is cut."""
    clip, tokenizer = backbones.vision, backbones.pipeline.tokenizer
    ids = tokenizer(
        list(texts), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids.to(clip.device)  # (B, T)
    out = clip.text_model(input_ids=ids)
    vectors = of_length(clip.text_projection(out.pooler_output)).float()
    ends = (ids == tokenizer.eos_token_id).long()
    mask = (ends.cumsum(1) - ends == 0).long()  # padding repeats the end token
    return Told(vectors, out.last_hidden_state.float(), mask)
