"""Sizes of the joints: what a checkpoint must know to build its model again."""

from dataclasses import asdict, dataclass

from gill_lite.errors import GillError


@dataclass(frozen=True)
class GillConfig:
    """Sizes of the joints. `img_token_ids` are the ids behind the tokenizer's own."""

    img_token_ids: tuple[int, ...]
    prompt_width: int  # E
    num_visual_tokens: int = 4  # K
    num_img_tokens: int = 8  # R
    ret_dim: int = 256  # P
    prompt_slots: int = 77  # L
    mapper: str = "gill"
    mapper_width: int = 512
    mapper_layers: int = 4
    mapper_heads: int = 4
    mapper_ffn: int = 2048
    has_bos: bool = True  # texts start with a token that joined second captions lose

    def __post_init__(self):
        ids = tuple(self.img_token_ids)
        object.__setattr__(self, "img_token_ids", ids)
        if len(ids) != self.num_img_tokens or list(ids) != list(range(ids[0], ids[0] + len(ids))):
            raise GillError(
                f"img_token_ids must be {self.num_img_tokens} consecutive ids, not {list(ids)}"
            )

    def to_dict(self) -> dict:
        """The fields as JSON can hold them."""
        return {**asdict(self), "img_token_ids": list(self.img_token_ids)}
