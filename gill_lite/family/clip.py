"""CLIP alone (Radford et al., 2021): it compares, and so it can choose, but it cannot speak.

    s(text, picture) = cos(text tower, picture tower)

Zero-shot: an attribute's value is the one whose sentence is nearest to the picture. A caption is
the nearest of BANK captions of the training pictures.
"""

import torch
from torch import Tensor

from gill_lite.family.system import Member
from gill_lite.pretraining.clip import image_embeds, text_embeds
from gill_lite.world.language import sentence
from gill_lite.world.pictures import training_caption
from gill_lite.world.scene import ATTRIBUTES, rng_for

BANK = 2_000


class Clip(Member):
    """The two towers."""

    reads = ("caption",)  # of the task's prompts

    def __init__(self, backbones):
        super().__init__()
        self.clip, self.tokenizer = backbones.vision, backbones.pipeline.tokenizer
        self.bank: tuple[list[str], Tensor] | None = None  # captions and their embeddings (BANK, P)

    @torch.no_grad()
    def similarity(self, texts: list[str], pixel_values: Tensor) -> Tensor:
        """Cosines (texts, pictures)."""
        texts_embeds = text_embeds(self.clip, self.tokenizer, texts)
        return texts_embeds @ image_embeds(self.clip, pixel_values).T

    def zero_shot(self, pixel_values: Tensor) -> list[dict[str, str]]:
        """Of each picture, the value of every attribute whose sentence is nearest."""
        rng, every = rng_for("zero-shot"), [(n, v) for n, vs in ATTRIBUTES.items() for v in vs]
        texts = [sentence({name: value}, rng, ("",)) for name, value in every]  # "a red thing ."
        cosines = dict(zip(every, self.similarity(texts, pixel_values), strict=True))
        return [
            {n: max(vs, key=lambda value: cosines[n, value][i]) for n, vs in ATTRIBUTES.items()}
            for i in range(len(pixel_values))
        ]

    @torch.no_grad()
    def respond(self, prompts: list) -> list[str]:
        """The nearest caption to the picture of each prompt `[picture]`."""
        if self.bank is None:
            texts = [training_caption(i, 0) for i in range(BANK)]
            self.bank = texts, text_embeds(self.clip, self.tokenizer, texts)
        texts, embeds = self.bank
        cosines = image_embeds(self.clip, torch.stack([p for (p,) in prompts])) @ embeds.T
        return [texts[i] for i in cosines.argmax(1).tolist()]


def build(backbones, seed, root) -> Clip:
    """CLIP, which learns nothing here."""
    return Clip(backbones)
