"""What the [IMG] tokens read: how much they attend to each word and picture before them."""

from typing import NamedTuple

import torch
from PIL import Image

from gill_lite.model.tokens import IGNORE, bos_ids


class Read(NamedTuple):
    """An item of what the LM reads, and its share of the attention of the [IMG] tokens."""

    item: str | Image.Image  # a token's text, or a picture
    share: float  # of 1 over all items


@torch.no_grad()
def read_by_img(responder, prompt: list) -> list[Read]:
    """The attention of [IMG] tokens right behind `prompt`, mean over layers, heads and tokens.

    The beginning-of-sequence token, where heads rest that look for nothing, is left out, and so
    are the [IMG] tokens themselves; a picture has the sum of its K visual tokens.
    """
    gill, tokenizer = responder.gill, responder.backbones.tokenizer
    embeds = responder.prompts.embed_prompt(prompt)[None]  # (1, T, D)
    img = gill.img_embeddings.to(embeds.dtype)[None]  # (1, R, D)
    shares = _attention(gill.lm, torch.cat([embeds, img], dim=1))[:, : embeds.shape[1]]
    shares = shares[-img.shape[1] :].mean(dim=0).tolist()  # T
    ids = responder.prompts.label_ids(prompt).tolist()  # T
    pictures = iter([item for item in prompt if isinstance(item, Image.Image)])
    found, at = [], 0
    while at < len(ids):
        if ids[at] == IGNORE:
            width = gill.config.num_visual_tokens
            found.append(Read(next(pictures), sum(shares[at : at + width])))
            at += width
            continue
        if [ids[at]] != bos_ids(tokenizer):
            found.append(Read(tokenizer.decode([ids[at]]), shares[at]))
        at += 1
    whole = sum(read.share for read in found)
    return [Read(read.item, read.share / whole) for read in found]


def _attention(lm, embeds: torch.Tensor) -> torch.Tensor:
    """Attention weights (T, T) of one sequence, mean over layers and heads.

    Only the plain implementation keeps them; the LM is put back to its own behind it.
    """
    own = lm.config._attn_implementation
    lm.set_attn_implementation("eager")
    try:
        out = lm.base_model(inputs_embeds=embeds, output_attentions=True, use_cache=False)
    finally:
        lm.set_attn_implementation(own)
    return torch.stack([layer[0].float().mean(dim=0) for layer in out.attentions]).mean(dim=0)
