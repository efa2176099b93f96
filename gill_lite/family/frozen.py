"""Frozen: a picture tower learns to speak to a frozen LM (Tsimpoukelli et al., 2021).

    v = W tower(x) + b,   loss = -log p(caption | v)

The gradient goes through every layer of the language model, and none of them moves. What CLIP
brings to the others the tower has to find in captions alone.
"""

from torch import Tensor, nn

from gill_lite.family.seer import K, Seer
from gill_lite.family.system import Stage
from gill_lite.pretraining.clip import PLACE_STD


class Frozen(Seer):
    """A tower of CLIP's size with random weights, and a linear layer."""

    stages = (Stage("tower", ("tower", "visual")),)

    def __init__(self, backbones):
        super().__init__(backbones)
        self.tower = type(self.vision)(self.vision.config)
        places = self.tower.embeddings.position_embedding.weight
        nn.init.normal_(places, std=PLACE_STD)  # as the world's CLIP began
        self.visual = nn.Linear(self.vision_width, K * self.width)

    def visual_tokens(self, pixel_values: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) as K words (B, K, D)."""
        pooled = self.tower(pixel_values=pixel_values.to(self.device)).pooler_output  # (B, Dv)
        return self.visual(pooled).unflatten(1, (K, -1))


def build(backbones, seed, root) -> Frozen:
    """An untrained one."""
    return Frozen(backbones)
