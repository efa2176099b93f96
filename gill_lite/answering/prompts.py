"""Texts and pictures -> what the language model reads, and the [IMG] states behind it.

Axes: B batch, T positions, K visual tokens, R [IMG] tokens, D LM width. Paper: Sec. 3.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from gill_lite.answering import decode
from gill_lite.datasets.images import SUFFIXES, as_rgb, squash
from gill_lite.errors import GillError
from gill_lite.model import tokens


class Prompts:
    """How `gill` on its backbones reads interleaved prompts."""

    def __init__(self, backbones, gill):
        self.backbones, self.gill = backbones, gill

    def embed_prompt(self, prompt: Sequence) -> Tensor:
        """A list of str and PIL images as input embeddings of the LM (T, D).

        The first text starts with the LM's beginning-of-sequence token, as in the official code.
        Raises GillError for an empty prompt, an empty text, a damaged picture, or an item of
        another type.
        """
        return self.embed_prompts([prompt])[0]

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence) -> list[Tensor]:
        """As `embed_prompt`, for several prompts: CLIP reads all their pictures at once."""
        prompts = [checked(prompt) for prompt in prompts]
        pictures = [x for prompt in prompts for x in prompt if isinstance(x, Image.Image)]
        visual = self._visual_tokens(pictures)  # one (K, D) a picture, in their order
        return [self._in_sequence(prompt, visual) for prompt in prompts]

    def label_ids(self, prompt: Sequence) -> Tensor:
        """What stands at each of a prompt's T positions (T,): a text's ids, IGNORE for pictures."""
        gap = [tokens.IGNORE] * self.gill.config.num_visual_tokens
        pieces = self._pieces(checked(prompt))
        ids = [i for piece in pieces for i in (piece if isinstance(piece, list) else gap)]
        return torch.tensor(ids, device=self.gill.logit_scale.device)

    def _visual_tokens(self, pictures: list) -> Iterator[Tensor]:
        if not pictures:
            return iter(())
        pixels = self.pixel_values(pictures).to(self.gill.logit_scale.device)
        return iter(self.gill.visual_tokens(pixels))

    def _in_sequence(self, prompt: list, visual: Iterator[Tensor]) -> Tensor:
        """The items of one prompt, one behind the other (T, D); takes its pictures off `visual`."""
        device = self.gill.logit_scale.device
        parts = [
            self.gill.embed(torch.tensor(piece, device=device))  # (a text's positions, D)
            if isinstance(piece, list)
            else next(visual)  # (K, D)
            for piece in self._pieces(prompt)
        ]
        return torch.cat(parts)  # (T, D)

    def _pieces(self, prompt: list) -> Iterator:
        """A text's ids, the first behind the beginning-of-sequence id; pictures as they are."""
        bos = True
        for item in prompt:
            if isinstance(item, str):
                yield tokens.encode_text(self.backbones.tokenizer, item, bos)
                bos = False
            else:
                yield item

    def pixel_values(self, images) -> Tensor:
        """PIL images as CLIP's input (B, 3, H, W), squashed to a square as in the paper's runs."""
        size = self.backbones.profile.image_size
        images = [squash(image.convert("RGB"), size) for image in images]
        return self.backbones.image_processor(images=images, return_tensors="pt").pixel_values

    @torch.no_grad()
    def img_states(self, prompts: Sequence) -> Tensor:
        """Hidden states of the [IMG] tokens forced behind each prompt, (B, R, D)."""
        embeds, mask = decode.pad_left(self.embed_prompts(prompts))
        return self.gill.img_states(embeds, mask)


def _names_a_picture(text: str) -> bool:
    """A file's name alone, or with blanks in it one that is there."""
    text = text.strip()
    return text.lower().endswith(SUFFIXES) and (len(text.split()) == 1 or os.path.isfile(text))


def checked(prompt) -> list:
    """The items of a prompt, pictures as RGB. Raises GillError naming one that will not do."""
    items = [prompt] if isinstance(prompt, str | Image.Image) else list(prompt)
    if not items:
        raise GillError("the prompt is empty; give it at least one text or image")
    for place, item in enumerate(items):
        who = f"item {place} of the prompt"
        if isinstance(item, Image.Image):
            items[place] = as_rgb(item, who)
        elif isinstance(item, str | Path) and _names_a_picture(str(item)):
            raise GillError(
                f"{who} is {str(item)!r}, the path of a picture, which would be read as text; give "
                f"open_image({str(item)!r}), in `gill-lite chat` @{item}"
            )
        elif not isinstance(item, str):
            raise GillError(f"{who} is a {type(item).__name__}; give text or PIL images")
        elif not item.strip():
            raise GillError(f"{who} is an empty text; leave it out")
    return items
