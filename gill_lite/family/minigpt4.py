"""MiniGPT-4: BLIP-2's Q-Former kept, one linear layer aligned anew (Zhu et al., 2023).

    v = W Q-Former(CLIP(x)) + b,   loss = -log p(text | v)

Stage one: captions. Its answers are then short and clumsy, so stage two shows EXAMPLES detailed
descriptions, each many times, in the form in which one will ask.
"""

import torch
from torch import Tensor, nn

from gill_lite.family.blip2 import WIDTH, Blip2
from gill_lite.family.instructions import description
from gill_lite.family.system import Stage, load
from gill_lite.world.pictures import training_scene
from gill_lite.world.scene import rng_for

EXAMPLES = 200  # 3,500 in the paper


class MiniGpt4(Blip2):
    """A linear layer behind a frozen Q-Former."""

    stages = (Stage("align", ("project",), share=0.9), Stage("instruct", ("project",), share=0.1))

    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """The next word of captions, in stage two of a few descriptions that are asked for."""
        if self.stage.name == "align":
            return self.said_loss(self.captioned(step, generator))
        index = [i % EXAMPLES for i in self.pairs.draw(generator)]
        texts = [description(training_scene(i), rng_for("described", i)) for i in index]
        pictures = self.pairs.pixel_values(index)
        return self.said_loss([[p, *text] for p, text in zip(pictures, texts, strict=True)])


def build(backbones, seed, root) -> MiniGpt4:
    """One whose Q-Former is that of a trained BLIP-2, its linear layer new."""
    member = MiniGpt4(backbones)
    member.load_state_dict(load("blip2", seed, root, backbones).own_state(), strict=False)
    member.project = nn.Linear(WIDTH, member.width)
    return member
