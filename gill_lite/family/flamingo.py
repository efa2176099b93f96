"""Flamingo: pictures enter between the layers of a frozen language model (Alayrac et al., 2022).

A perceiver resampler makes LATENTS vectors z of CLIP's patches. Before every EVERY-th layer words
look at the z of the latest picture, through gates that start shut:

    y = x + tanh(a) cross-attention(x, z)         a = 0 at first
    x = y + tanh(b) feed-forward(y)               b = 0 at first

so that at step 0 the model is the language model itself. A picture takes no place among the words,
and where none was shown the new layers add nothing.

Axes: B pictures, L latents, S patches, Dv their width, R rows, T positions, D LM width, H heads.
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

    def __init__(self, width: int, seen_width: int):
        super().__init__()
        self.norm, self.query = nn.LayerNorm(width), nn.Linear(width, width)
        self.keys_values, self.out = nn.Linear(seen_width, 2 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.gates = nn.Parameter(torch.zeros(2))  # a, b

    def forward(self, x: Tensor, latents: Tensor, shown: Tensor) -> Tensor:
        """Words x (R, T, D), latents (B, L, Dv), and which picture's a word sees (R, T)."""
        a, b = self.gates.tanh()
        seen = (shown != NOTHING)[..., None].to(x.dtype)  # (R, T, 1)
        x = x + a * seen * self.looked(x, latents, shown.clamp(min=0))
        return x + b * seen * self.feed(x)

    def looked(self, x: Tensor, latents: Tensor, shown: Tensor) -> Tensor:
        """Cross-attention (R, T, D); keys and values are made once a picture, then dealt out."""
        query = self.query(self.norm(x)).unflatten(-1, (HEADS, -1))  # (R, T, H, d)
        keys, values = (part.unflatten(-1, (HEADS, -1))[shown]  # (R, T, L, H, d)
                        for part in self.keys_values(latents).chunk(2, dim=-1))  # fmt: skip
        fits = torch.einsum("rthd,rtlhd->rthl", query, keys) / query.shape[-1] ** 0.5
        return self.out(torch.einsum("rthl,rtlhd->rthd", fits.softmax(-1), values).flatten(2))


class Flamingo(Seer):
    """A resampler, and gated layers in a copy of the frozen language model."""

    stages = (Stage("align", ("resampler", "gated")),)

    def __init__(self, backbones):
        super().__init__(backbones)
        self.lm = deepcopy(self.lm)  # the hooks are for this one alone
        width = self.vision_width
        self.resampler = Idefics2PerceiverResampler(Idefics2PerceiverConfig(
            hidden_size=width, resampler_n_latents=LATENTS, resampler_depth=DEPTH,
            resampler_n_heads=HEADS, resampler_head_dim=width // HEADS,
            num_key_value_heads=HEADS,
        ))  # fmt: skip
        nn.init.normal_(self.resampler.latents, std=width**-0.5)  # all alike they stay alike
        layers = self.lm.model.decoder.layers[::EVERY]
        self.gated = nn.ModuleList(GatedCrossAttention(self.width, width) for _ in layers)
        for layer, gated in zip(layers, self.gated, strict=True):
            layer.register_forward_pre_hook(self.before(gated))
        self.latents: Tensor | None = None  # (B, L, Dv) of the pictures that were read

    def visual_tokens(self, pixel_values: Tensor) -> Tensor:
        """Reads the pictures; among the words they take no place (B, 0, D)."""
        patches = self.patches(pixel_values)  # (B, 1 + S, Dv)
        self.latents = self.resampler(patches, torch.ones(patches.shape[:2], device=self.device))
        return self.latents.new_zeros(len(patches), 0, self.width)

    def watch(self) -> dict:
        """How far the gates are open, tanh(a) and tanh(b) of each gated layer."""
        return {"gates": [[round(g, 4) for g in each.gates.tanh().tolist()] for each in self.gated]}

    def before(self, gated: GatedCrossAttention):
        """The hook that runs a gated layer before a layer of the language model."""

        def hook(layer, arguments):
            x, *rest = arguments  # (R, T, D), T = 1 where words are said one by one
            if self.latents is None:
                return arguments
            shown = self.shown[:, -x.shape[1] :]  # (R, T), the number of the latest picture
            return gated(x, self.latents, shown), *rest

        return hook


def build(backbones, seed, root) -> Flamingo:
    """An untrained one: the language model itself."""
    return Flamingo(backbones)
