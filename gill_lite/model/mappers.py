"""The generation joint: LM states of the R [IMG] tokens -> prompt embeddings of the generator.

A mapper is one class here and one entry of MAPPERS. It is built from (config, in_width), a
GillConfig and the LM's width D, and called as `mapper(hidden, inputs)` with the LM's last hidden
states and the input embeddings of the [IMG] tokens, both (B, R, D); it gives (B, L, E). The
GILLMapper and the Transformer encoder read their sum, the other two the hidden states alone.
Paper: Sec. 3 (GILLMapper) and the ablation table; sizes: official code. The official code
holds GILLMapper and Linear; the width of the other two is not in our sources and is M here.

Axes: B batch, R [IMG] tokens, D LM width, M mapper width, L slots, E prompt-embedding width.
"""

import torch
from torch import Tensor, nn

from gill_lite.errors import GillError
from gill_lite.model.config import GillConfig

RETRIEVAL_ONLY = "none"  # no generation joint, as in FROMAGe
PRE_NORM = {"dropout": 0.0, "norm_first": True, "batch_first": True}  # of Transformer layers


class NoMapper(nn.Module):
    """Joints that retrieve and do not generate, as FROMAGe's; it has nothing to learn."""

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Raises GillError."""
        raise GillError("these joints only retrieve; to generate, use joints with a mapper")


class LinearMapper(nn.Module):
    """One linear map for all [IMG] tokens: each gives L*E/R numbers, cut into slots."""

    def __init__(self, config: GillConfig, in_width: int):
        super().__init__()
        self.slots = config.prompt_slots
        self.project = nn.Linear(in_width, numbers_per_token(config))

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """(B, R, D) -> (B, L, E)."""
        return into_slots(self.project(hidden), self.slots)  # (B, L, E)


class MlpMapper(nn.Module):
    """Three linear layers with GELU between them, per [IMG] token; then as `LinearMapper`."""

    def __init__(self, config: GillConfig, in_width: int):
        super().__init__()
        self.slots, width = config.prompt_slots, config.mapper_width
        self.layers = nn.Sequential(
            nn.Linear(in_width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, numbers_per_token(config)),
        )

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """(B, R, D) -> (B, L, E)."""
        return into_slots(self.layers(hidden), self.slots)  # (B, L, E)


class EncoderMapper(nn.Module):
    """A Transformer encoder over the R tokens, no queries; then as `LinearMapper`."""

    def __init__(self, config: GillConfig, in_width: int):
        super().__init__()
        self.slots = config.prompt_slots
        self.project_in = nn.Linear(in_width, config.mapper_width)
        self.encoder = transformer_encoder(config)
        self.project_out = nn.Linear(config.mapper_width, numbers_per_token(config))

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """(B, R, D) -> (B, L, E)."""
        states = self.encoder(self.project_in(hidden + inputs))  # (B, R, M)
        return into_slots(self.project_out(states), self.slots)  # (B, L, E)


class GillMapper(nn.Module):
    """Encoder-decoder whose L learned queries read the [IMG] tokens (paper Sec. 3)."""

    def __init__(self, config: GillConfig, in_width: int):
        super().__init__()
        width = config.mapper_width
        self.project_in = nn.Linear(in_width, width)
        self.transformer = nn.Transformer(
            d_model=width,
            nhead=config.mapper_heads,
            num_decoder_layers=config.mapper_layers,
            dim_feedforward=config.mapper_ffn,
            custom_encoder=transformer_encoder(config),
            **PRE_NORM,
        )
        self.queries = nn.Parameter(torch.randn(1, config.prompt_slots, width))
        self.project_out = nn.Linear(width, config.prompt_width)

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """(B, R, D) -> (B, L, E)."""
        memory = self.project_in(hidden + inputs)  # (B, R, M)
        queries = self.queries.expand(len(hidden), -1, -1)  # (B, L, M)
        return self.project_out(self.transformer(memory, queries))  # (B, L, E)


MAPPERS = {"gill": GillMapper, "encoder": EncoderMapper, "mlp": MlpMapper, "linear": LinearMapper}


def build_mapper(config: GillConfig, in_width: int) -> nn.Module:
    """The mapper that `config` names, for an LM of width `in_width`."""
    if config.mapper == RETRIEVAL_ONLY:
        return NoMapper()
    if config.mapper not in MAPPERS:
        known = ", ".join([*MAPPERS, RETRIEVAL_ONLY])
        raise GillError(f"unknown mapper '{config.mapper}'; known are {known}")
    return MAPPERS[config.mapper](config, in_width)


def transformer_encoder(config: GillConfig) -> nn.TransformerEncoder:
    """Pre-norm layers without dropout, final norm and start values of nn.Transformer."""
    width = config.mapper_width
    layer = nn.TransformerEncoderLayer(width, config.mapper_heads, config.mapper_ffn, **PRE_NORM)
    encoder = nn.TransformerEncoder(
        layer, config.mapper_layers, nn.LayerNorm(width), enable_nested_tensor=False
    )
    for parameter in encoder.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    return encoder


def numbers_per_token(config: GillConfig) -> int:
    """How many of the L*E numbers each of the R tokens must give."""
    count, slots, width = config.num_img_tokens, config.prompt_slots, config.prompt_width
    if slots * width % count:
        raise GillError(
            f"{count} [IMG] tokens cannot share {slots} x {width} prompt numbers evenly; "
            "use the 'gill' mapper or another number of [IMG] tokens"
        )
    return slots * width // count


def into_slots(numbers: Tensor, slots: int) -> Tensor:
    """What each token gives (B, R, L*E/R), one behind the other, cut into (B, L, E)."""
    return numbers.flatten(1).unflatten(1, (slots, -1))
