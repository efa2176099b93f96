"""LiMBeR: one linear layer from CLIP to the language model (Merullo et al., 2023).

    v = W CLIP(x) + b,   loss = -log p(caption | v)

Both models stay as they are. GILL's way into the language model is this layer: K tokens from the
pooled output, where LiMBeR has one from each patch.
"""

from torch import Tensor, nn

from gill_lite.family.seer import K, Seer
from gill_lite.family.system import Stage


class Limber(Seer):
    """One linear layer."""

    stages = (Stage("align", ("visual",)),)

    def __init__(self, backbones):
        super().__init__(backbones)
        self.visual = nn.Linear(self.vision_width, K * self.width)

    def visual_tokens(self, pixel_values: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) as K words (B, K, D)."""
        return self.visual(self.pooled(pixel_values)).unflatten(1, (K, -1))


def build(backbones, seed, root) -> Limber:
    """An untrained one."""
    return Limber(backbones)
