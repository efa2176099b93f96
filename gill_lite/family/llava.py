"""LLaVA: every patch a word, and a language model tuned on instructions (Liu et al., 2023).

    v_s = W CLIP_s(x) + b,  for each of the S patches;   loss = -log p(answer | v, question)

CLIP's patches are those behind its last layer but one. Stage one aligns the projector on captions,
the language model frozen; stage two tunes both on instructions of three kinds.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from gill_lite.family.instructions import instruction
from gill_lite.family.seer import Seer
from gill_lite.family.system import Stage
from gill_lite.world.pictures import training_scene
from gill_lite.world.scene import rng_for


class Llava(Seer):
    """A projector, and a language model of its own."""

    stages = (
        Stage("align", ("projector",), share=0.5),
        Stage("instruct", ("projector", "lm"), share=0.5, lr=2e-4),
    )

    def __init__(self, backbones):
        super().__init__(backbones)
        self.lm = deepcopy(self.lm)  # it will change
        self.projector = nn.Linear(self.vision_width, self.width)

    def visual_tokens(self, pixel_values: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) as S words (B, S, D), one a patch."""
        return self.projector(self.patches(pixel_values, layer=-2)[:, 1:])

    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """The next word of captions, then of answers to instructions."""
        if self.stage.name == "align":
            return super().loss(step, generator)
        index = self.pairs.draw(generator)
        texts = [instruction(training_scene(i), rng_for("instruction", i, step)) for i in index]
        pictures = self.pairs.pixel_values(index)
        return self.said_loss([[p, *text] for p, text in zip(pictures, texts, strict=True)])


def build(backbones, seed, root) -> Llava:
    """An untrained one."""
    return Llava(backbones)
