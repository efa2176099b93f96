"""Those who draw and are trained elsewhere: Stable Diffusion, GLIDE, and whoever has a Gill.

Axes: B prompts, L prompt-embedding slots, E their width.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gill_lite.answering.drawing import Drawing
from gill_lite.answering.respond import Responder
from gill_lite.family.drawing import joined
from gill_lite.family.system import Member
from gill_lite.files import shipped
from gill_lite.world.glide import load_glide


class GillPainter:
    """What a member with a `gill` and `backbones` can draw."""

    backbones: Any
    gill: Any

    @cached_property
    def responder(self) -> Responder:
        """The Gill, ready to read prompts."""
        return Responder(self.backbones, self.gill)

    @torch.no_grad()
    def slots(self, prompts) -> Tensor:
        """What the mapper makes of prompts, each a list of str and PIL images: (B, L, E)."""
        return self.gill.prompt_embeds(self.responder.prompts.img_states(prompts))

    def draw(self, prompts, seeds) -> Tensor:
        """One picture a prompt, (B, 3, 64, 64) in 0..1."""
        return self.responder.drawing.draw(self.slots(prompts), seeds)


class Elsewhere(Member):
    """A model whose weights are the mini world's own; `learned` of them learned to draw."""

    def __init__(self, backbones, learned: torch.nn.Module):
        super().__init__()
        self.backbones, self.learned = backbones, learned

    def own_state(self) -> dict[str, Tensor]:
        """What `gill-lite pretrain` learned for it."""
        return dict(self.learned.named_parameters())


class StableDiffusion(Elsewhere):
    """The words of a prompt through Stable Diffusion's own text encoder."""

    def draw(self, prompts, seeds) -> Tensor:
        """One picture a prompt, (B, 3, 64, 64) in 0..1."""
        drawing = Drawing(self.backbones)
        return drawing.draw(drawing.text_embeds(joined(prompts)), seeds)


class Glide(Elsewhere):
    """The words of a prompt through the mini GLIDE."""

    def __init__(self, backbones, glide):
        super().__init__(backbones, torch.nn.ModuleList([glide.text_encoder, glide.unet]))
        self.glide = glide

    def draw(self, prompts, seeds) -> Tensor:
        """One picture a prompt, (B, 3, 64, 64) in 0..1."""
        steps = self.backbones.profile.num_inference_steps
        return self.glide.draw(joined(prompts), seeds, num_inference_steps=steps)


def build(backbones, seed: int, root, which: str) -> Elsewhere:
    """Stable Diffusion or GLIDE, as it ships."""
    if which == "glide":
        return Glide(backbones, load_glide(shipped("mini/glide")))
    return StableDiffusion(backbones, backbones.pipeline.unet)
