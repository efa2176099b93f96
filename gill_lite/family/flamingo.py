"""Flamingo: pictures enter between the layers of a frozen language model (Alayrac et al., 2022).

A perceiver resampler makes LATENTS vectors z of a picture. Before every EVERY-th layer words look
at the z of the latest picture, through gates that start shut:

    y = x + tanh(a) cross-attention(x, z)         a = 0 at first
    x = y + tanh(b) feed-forward(y)               b = 0 at first

so that at step 0 the model is the language model itself. A picture takes no place among the words,
and where none was shown the new layers add nothing.

Axes: B pictures, L latents, S patches, R rows, T positions, D LM width.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from transformers import Idefics2PerceiverConfig
from transformers.models.idefics2.modeling_idefics2 import Idefics2PerceiverResampler

from gill_lite.family.seer import NOTHING, Seer
from gill_lite.family.system import Stage

LATENTS, DEPTH, HEADS, EVERY = 8, 2, 4, 2


class GatedCrossAttention(nn.Module):
    """What stands before a layer of the language model."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.attend = (
            nn.LayerNorm(width),
            nn.MultiheadAttention(width, HEADS, batch_first=True),
        )
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.gates = nn.Parameter(torch.zeros(2))  # a, b

    def forward(self, x: Tensor, latents: Tensor, seen: Tensor) -> Tensor:
        """Words x (R, T, D), each with the latents (R, T, L, D) it may see, or none: seen 0."""
        a, b = self.gates.tanh()
        query, keys = self.norm(x).flatten(0, 1)[:, None], latents.flatten(0, 1)
        looked = self.attend(query, keys, keys, need_weights=False)[0]  # (R * T, 1, D)
        x = x + a * seen * looked.view_as(x)
        return x + b * seen * self.feed(x)


class Flamingo(Seer):
    """A resampler, and gated layers in a copy of the frozen language model."""

    stages = (Stage("align", ("resampler", "widen", "gated")),)

    def __init__(self, backbones):
        super().__init__(backbones)
        self.lm = deepcopy(self.lm)  # the hooks are for this one alone
        self.widen = nn.Linear(self.vision_width, self.width)
        self.resampler = Idefics2PerceiverResampler(Idefics2PerceiverConfig(
            hidden_size=self.width, resampler_n_latents=LATENTS, resampler_depth=DEPTH,
            resampler_n_heads=HEADS, resampler_head_dim=self.width // HEADS,
            num_key_value_heads=HEADS,
        ))  # fmt: skip
        nn.init.normal_(self.resampler.latents, std=self.width**-0.5)  # all alike they stay alike
        layers = self.lm.model.decoder.layers[::EVERY]
        self.gated = nn.ModuleList(GatedCrossAttention(self.width) for _ in layers)
        for layer, gated in zip(layers, self.gated, strict=True):
            layer.register_forward_pre_hook(self.before(gated))
        self.latents: Tensor | None = None  # (B, L, D) of the pictures that were read

    def visual_tokens(self, pixel_values: Tensor) -> Tensor:
        """Reads the pictures; among the words they take no place (B, 0, D)."""
        patches = self.widen(self.patches(pixel_values))  # (B, 1 + S, D)
        self.latents = self.resampler(patches, torch.ones(patches.shape[:2], device=self.device))
        return self.latents[:, :0]

    def before(self, gated: GatedCrossAttention):
        """The hook that runs a gated layer before a layer of the language model."""

        def hook(layer, arguments):
            x, *rest = arguments  # (R, T, D), T = 1 where words are said one by one
            if self.latents is None:
                return arguments
            shown = self.shown[:, -x.shape[1] :]  # (R, T), the number of the latest picture
            latents = self.latents[shown.clamp(min=0)]  # (R, T, L, D)
            return gated(x, latents, (shown != NOTHING)[..., None].to(x.dtype)), *rest

        return hook


def build(backbones, seed, root) -> Flamingo:
    """An untrained one: the language model itself."""
    return Flamingo(backbones)
