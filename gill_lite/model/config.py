"""Sizes of the joints: what a checkpoint must know to build its model again."""

from dataclasses import asdict, dataclass, fields

from gill_lite.errors import GillError
from gill_lite.model.backbones import prompt_width
from gill_lite.model.tokens import img_token_ids


@dataclass(frozen=True)
class GillConfig:
    """Sizes of the joints. `img_token_ids` are the ids behind the tokenizer's own."""

    img_token_ids: tuple[int, ...]
    prompt_width: int  # E
    num_visual_tokens: int = 4  # K
    num_img_tokens: int = 8  # R
    ret_dim: int = 256  # P
    prompt_slots: int = 77  # L
    mapper: str = "gill"  # a name in mappers.MAPPERS, or mappers.RETRIEVAL_ONLY
    mapper_width: int = 512  # M
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

    @classmethod
    def of(cls, profile, backbones, mapper: str = "gill") -> "GillConfig":
        """The sizes of `profile`, and what its backbones say of tokens and of the generator."""
        shared = {f.name for f in fields(cls)} & {f.name for f in fields(profile)}
        return cls(
            img_token_ids=img_token_ids(backbones.tokenizer, profile.num_img_tokens),
            prompt_width=prompt_width(backbones.pipeline, profile.prompt_slots),
            mapper=mapper,
            has_bos=backbones.tokenizer.bos_token_id is not None,
            **{name: getattr(profile, name) for name in shared},
        )

    def to_dict(self) -> dict:
        """The fields as JSON can hold them."""
        return {**asdict(self), "img_token_ids": list(self.img_token_ids)}
