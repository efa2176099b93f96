"""What training processes exchange: sums, gradients, and the embeddings of the whole batch.

Each function is also right on a single process, where it changes nothing.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def several() -> bool:
    """Whether this process belongs to a group."""
    return dist.is_available() and dist.is_initialized()


def add_up(values: Tensor) -> Tensor:
    """Sum over all processes, in place."""
    if several():
        dist.all_reduce(values)
    return values


def agree(value: int, device) -> bool:
    """Whether all processes have the same value."""
    extremes = torch.tensor([value, -value], device=device)
    if several():
        dist.all_reduce(extremes, dist.ReduceOp.MAX)
    return int(extremes.sum()) == 0


def gather_rows(rows: Tensor, first: int, size: int) -> Tensor:
    """The whole batch (size, ...) of which this process holds the rows from `first` on.

    Gradients flow back: a row's gradient is the sum of what all processes make of it.
    """
    return _GatherRows.apply(rows, first, size) if several() else rows


class _GatherRows(torch.autograd.Function):
    """Own rows among zeros, summed: processes may hold different numbers of rows."""

    @staticmethod
    def forward(ctx, rows: Tensor, first: int, size: int) -> Tensor:
        ctx.own = slice(first, first + len(rows))
        whole = rows.new_zeros(size, *rows.shape[1:])
        whole[ctx.own] = rows
        return add_up(whole)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        whole = gradient.clone(memory_format=torch.contiguous_format)
        return add_up(whole)[ctx.own], None, None


def sum_gradients(parameters: list[Tensor]) -> None:
    """Replace each gradient by its sum over all processes, in one message."""
    if not several():
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = add_up(torch.cat([gradient.flatten() for gradient in gradients]))
    for parameter, total in zip(parameters, flat.split([p.numel() for p in parameters])):
        parameter.grad = total.view_as(parameter)
