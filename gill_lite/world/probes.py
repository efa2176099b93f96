"""The probes: a small network that reads the six attributes off a picture of the mini world."""

from pathlib import Path

import torch
from torch import nn

from gill_lite.files import shipped
from gill_lite.world.scene import ATTRIBUTES


class Probes(nn.Module):
    """A small convolutional network with one linear head an attribute."""

    def __init__(self):
        super().__init__()
        widths, layers = (3, 24, 48, 64, 96), []
        for a, b in zip(widths, widths[1:]):
            layers += [nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())  # (B, 96 * 4 * 4)
        self.heads = nn.ModuleDict({n: nn.Linear(1536, len(v)) for n, v in ATTRIBUTES.items()})

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Pictures (B, 3, 64, 64) in 0..1 to logits (B, values) by attribute."""
        features = self.body(pictures * 2 - 1)
        return {name: head(features) for name, head in self.heads.items()}


def load_probes(directory: Path | None = None) -> Probes:
    """The mini world's attribute probes, those that ship with it or another folder's."""
    from safetensors.torch import load_file

    probes = Probes()
    weights = load_file((directory or shipped("mini/probes")) / "model.safetensors")
    probes.load_state_dict({name: value.float() for name, value in weights.items()})
    return probes.eval().requires_grad_(False)
