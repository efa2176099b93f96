"""The [IMG] rows: R learned words behind the frozen vocabulary of the language model.

Axes: B batch, T text positions, R [IMG] tokens, D LM width, V vocabulary. Paper: Sec. 3.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Vocabulary(nn.Module):
    """The part of `Gill` that knows the rows: the LM's own, filler, and the learned [IMG] rows.

    The LM itself is never changed. An [IMG] token has one row, for input and output, also where
    the LM's own are untied.
    """

    lm: nn.Module
    img_embeddings: nn.Parameter  # (R, D), learned
    filler_rows: Tensor  # (ids between the LM's own and [IMG0], D), frozen
    row_norm: Tensor  # mean norm of the LM's own rows and the filler
    own_rows: int  # how many rows of the LM are used

    def add_img_rows(self, first: int, count: int) -> None:
        """Rows for the ids `first` and on, drawn at random, and for the ids between.

        The official code adds `<|image|>` there; like resized vocabularies it starts as the
        mean of all rows, is never trained and only counts in the softmax.
        """
        table = self.lm.get_input_embeddings()
        self.img_embeddings = nn.Parameter(torch.randn(count, table.embedding_dim))
        rows = table.weight.detach()[:first]  # (V - R or fewer, D)
        filler = rows.float().mean(dim=0, keepdim=True).expand(first - len(rows), -1)
        norms = torch.cat([rows.float().norm(dim=1), filler.norm(dim=1)])
        self.register_buffer("filler_rows", filler.to(rows.dtype).clone(), persistent=False)
        self.register_buffer("row_norm", norms.mean(), persistent=False)
        self.own_rows = len(rows)
        self.rescale_img_embeddings()

    @torch.no_grad()
    def rescale_img_embeddings(self) -> None:
        """Give each [IMG] row the mean norm of the other rows; called after each step."""
        norms = self.img_embeddings.norm(dim=1, keepdim=True)  # (R, 1)
        self.img_embeddings.mul_(self.row_norm.to(norms) / norms)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Input embeddings (..., T, D); ids of [IMG] tokens take the learned rows."""
        table = self.lm.get_input_embeddings()
        input_ids = input_ids.to(table.weight.device, non_blocking=True)
        own = input_ids < self.own_rows  # (..., T)
        text = table(torch.where(own, input_ids, 0))  # (..., T, D)
        extra = torch.cat([self.filler_rows, self.img_embeddings.to(text.dtype)])
        added = F.embedding((input_ids - self.own_rows).clamp(min=0), extra)
        return torch.where(own[..., None], text, added)

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (..., V) over text, filler and [IMG] rows, in this order."""
        head = self.lm.get_output_embeddings()
        extra = torch.cat([self.filler_rows, self.img_embeddings.to(hidden.dtype)])
        own = hidden @ head.weight[: self.own_rows].T
        if head.bias is not None:
            own = own + head.bias[: self.own_rows]
        return torch.cat([own, hidden @ extra.T], dim=-1)
