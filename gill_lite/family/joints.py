"""FROMAGe and GILL as they see: their joints, made by `gill-lite train`, in the family's task.

Both read a picture as LiMBeR does, K tokens from one linear layer. FROMAGe adds one row [RET] and
two heads that compare it with pictures; GILL has R rows [IMG] and a mapper that draws.
"""

import torch
from torch import Tensor

from gill_lite.family.painters import GillPainter
from gill_lite.family.seer import Seer
from gill_lite.model.checkpoint import joints_folder, joints_for
from gill_lite.model.tokens import encode_text, pad_id, pad_rows


class Joints(GillPainter, Seer):
    """A Gill behind the family's prompts."""

    def __init__(self, backbones, method: str, seed: int):
        super().__init__(backbones)
        self.backbones = backbones
        self.gill = joints_for(backbones, joints_folder(method, seed))

    def own_state(self) -> dict[str, Tensor]:
        """The joints."""
        return {name: value.detach() for name, value in self.gill.trainable_parameters().items()}

    def visual_tokens(self, pixel_values: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) as K words (B, K, D)."""
        return self.gill.visual_tokens(pixel_values)

    @torch.no_grad()
    def similarity(self, texts: list[str], pixel_values: Tensor) -> Tensor:
        """Cosines (texts, pictures), from the state of the first learned row behind a text."""
        ids = [[*encode_text(self.tokenizer, t), *self.gill.config.img_token_ids] for t in texts]
        rows = pad_rows(ids, pad_id(self.tokenizer))
        states = self.gill.lm_states(self.gill.embed(rows.input_ids))  # (texts, T, D)
        first = rows.lengths - self.gill.config.num_img_tokens
        hidden = states[torch.arange(len(texts)), first][:, None]  # (texts, 1, D)
        return self.gill.retrieval_embedding(hidden) @ self.gill.image_features(pixel_values).T


def build(backbones, seed, root, method) -> Joints:
    """The joints of a method and seed that ship."""
    return Joints(backbones, method, seed)
