"""The generation joint: LM states of the R [IMG] tokens -> prompt embeddings of the generator.

Every mapper is called as `mapper(hidden, inputs)` with the LM's last hidden states and the
input embeddings of the [IMG] tokens, both (B, R, D), and gives (B, L, E). The mapper and
the Transformer encoder read their sum, the other two the hidden states alone.
Paper: Sec. 3 (GILLMapper) and the ablation table; sizes: official code. The official code
holds GILLMapper and Linear; the width of the other two is not in our sources and is M here.

Axes: B batch, R [IMG] tokens, D LM width, M mapper width, L slots, E prompt-embedding width.
"""

import torch
from torch import Tensor, nn

from gill_lite.errors import GillError

KINDS = ("gill", "encoder", "mlp", "linear")
RETRIEVAL_ONLY = "none"  # no generation joint, as in FROMAGe


class NoMapper(nn.Module):
    """Joints that retrieve and do not generate, as FROMAGe's; it has nothing to learn."""

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Raises GillError."""
        raise GillError("these joints only retrieve; to generate, use joints with a mapper")


class LinearMapper(nn.Module):
    """One linear map for all [IMG] tokens: each gives L*E/R numbers, cut into slots."""

    def __init__(self, in_width: int, num_img: int, slots: int, width: int):
        super().__init__()
        self.slots, self.width = slots, width
        self.project = nn.Linear(in_width, numbers_per_token(num_img, slots, width))

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """(B, R, D) -> (B, L, E)."""
        return self.project(hidden).reshape(len(hidden), self.slots, self.width)  # (B, L, E)


class MlpMapper(nn.Module):
    """Three linear layers with GELU between them, per [IMG] token; then as `LinearMapper`."""

    def __init__(self, in_width: int, num_img: int, slots: int, width: int, inner: int):
        super().__init__()
        self.slots, self.width = slots, width
        self.layers = nn.Sequential(
            nn.Linear(in_width, inner),
            nn.GELU(),
            nn.Linear(inner, inner),
            nn.GELU(),
            nn.Linear(inner, numbers_per_token(num_img, slots, width)),
        )

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """(B, R, D) -> (B, L, E)."""
        return self.layers(hidden).reshape(len(hidden), self.slots, self.width)  # (B, L, E)


class EncoderMapper(nn.Module):
    """A Transformer encoder over the R tokens, no queries; then as `LinearMapper`."""

    def __init__(
        self,
        in_width: int,
        num_img: int,
        slots: int,
        width: int,
        inner: int,
        layers: int,
        heads: int,
        ffn: int,
    ):
        super().__init__()
        self.slots, self.width = slots, width
        self.project_in = nn.Linear(in_width, inner)
        self.encoder = transformer_encoder(inner, layers, heads, ffn)
        self.project_out = nn.Linear(inner, numbers_per_token(num_img, slots, width))

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """(B, R, D) -> (B, L, E)."""
        states = self.encoder(self.project_in(hidden + inputs))  # (B, R, M)
        return self.project_out(states).reshape(len(hidden), self.slots, self.width)  # (B, L, E)


class GillMapper(nn.Module):
    """Encoder-decoder whose L learned queries read the [IMG] tokens (paper Sec. 3)."""

    def __init__(
        self, in_width: int, slots: int, width: int, inner: int, layers: int, heads: int, ffn: int
    ):
        super().__init__()
        self.project_in = nn.Linear(in_width, inner)
        self.transformer = nn.Transformer(
            d_model=inner,
            nhead=heads,
            num_decoder_layers=layers,
            dim_feedforward=ffn,
            dropout=0.0,
            norm_first=True,
            batch_first=True,
            custom_encoder=transformer_encoder(inner, layers, heads, ffn),
        )
        self.queries = nn.Parameter(torch.randn(1, slots, inner))
        self.project_out = nn.Linear(inner, width)

    def forward(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """(B, R, D) -> (B, L, E)."""
        memory = self.project_in(hidden + inputs)  # (B, R, M)
        queries = self.queries.expand(len(hidden), -1, -1)  # (B, L, M)
        return self.project_out(self.transformer(memory, queries))  # (B, L, E)


def transformer_encoder(width: int, layers: int, heads: int, ffn: int) -> nn.TransformerEncoder:
    """`layers` pre-norm layers without dropout, final norm and start values of nn.Transformer."""
    layer = nn.TransformerEncoderLayer(
        width, heads, ffn, dropout=0.0, norm_first=True, batch_first=True
    )
    encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
    for parameter in encoder.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    return encoder


def numbers_per_token(num_img: int, slots: int, width: int) -> int:
    """How many of the L*E numbers each of the R tokens must give."""
    if slots * width % num_img:
        raise GillError(
            f"{num_img} [IMG] tokens cannot share {slots} x {width} prompt numbers evenly; "
            "use the 'gill' mapper or another number of [IMG] tokens"
        )
    return slots * width // num_img


def build_mapper(config, in_width: int) -> nn.Module:
    """The mapper that `config` (a GillConfig) describes, for an LM of width `in_width`."""
    ends = {"in_width": in_width, "slots": config.prompt_slots, "width": config.prompt_width}
    body = {
        "inner": config.mapper_width,
        "layers": config.mapper_layers,
        "heads": config.mapper_heads,
        "ffn": config.mapper_ffn,
    }
    num_img = config.num_img_tokens
    if config.mapper == "gill":
        return GillMapper(**ends, **body)
    if config.mapper == "encoder":
        return EncoderMapper(**ends, num_img=num_img, **body)
    if config.mapper == "mlp":
        return MlpMapper(**ends, num_img=num_img, inner=config.mapper_width)
    if config.mapper == "linear":
        return LinearMapper(**ends, num_img=num_img)
    if config.mapper == RETRIEVAL_ONLY:
        return NoMapper()
    raise GillError(
        f"unknown mapper '{config.mapper}'; known are {', '.join((*KINDS, RETRIEVAL_ONLY))}"
    )
