"""Processes that train together: which part of a batch each computes, and what they exchange.

Each function is also right on a single process, where it changes nothing.
"""

import os
import sys
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from gill_lite.errors import GillError

SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
RANKS = ("RANK", "LOCAL_RANK")


def join_group(cpu: bool, **options):
    """Accelerate's view of the processes that share the work; one where nothing launched more.

    A cluster sets the same variables as a launcher: what they ask for is told, and where it
    cannot be, GillError names them. cpu: take no GPU; options: of Accelerate's PartialState.
    """
    from accelerate import PartialState

    said = {n: os.environ[n] for n in (*SIZES, *RANKS) if os.environ.get(n, "-1") != "-1"}
    told = ", ".join(f"{name}={value}" for name, value in said.items())
    where = os.environ.get("MASTER_ADDR")
    if not said and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        print("gill-lite: each task of this step does all the work; `accelerate launch` shares it, "
              "and evaluate takes --shard i/n", file=sys.stderr)  # fmt: skip
    elif not where and all(said.get(name, "1") == "1" for name in SIZES):
        for name in said:  # a group of one
            del os.environ[name]
    elif said and "TORCHELASTIC_RUN_ID" not in os.environ:  # of a launcher, which starts them all
        print(f"gill-lite: one of several processes ({told}), waiting for the others at {where}; "
              "unset these variables to work alone", file=sys.stderr)  # fmt: skip
    try:
        return PartialState(cpu=cpu, **options)
    except (ValueError, RuntimeError) as error:
        if not said:
            raise
        raise GillError(
            f"{told}: this is to be one of several processes, and they do not meet ("
            f"{str(error).splitlines()[0]}); unset these variables, or use `accelerate launch`"
        ) from error


class Part(NamedTuple):
    """What of each batch one process computes: neighbouring rows, in micro-batches."""

    batch_size: int  # of all processes together
    processes: int
    own: slice  # rows of the batch
    micro_batches: list[slice]  # of the own rows

    @property
    def first(self) -> int:
        """The first own row."""
        return self.own.start


def split_batch(profile, process: int = 0, processes: int = 1, micro_batches: int = 1) -> Part:
    """The part of process number `process`; all parts are as equal as whole pairs allow.

    Rows 2i and 2i+1 stay together, since captions are joined in such pairs. Raises GillError
    where there are fewer pairs than parts.
    """
    size, unit = profile.batch_size, 2 if profile.join_probability > 0 else 1
    if size % unit:
        raise GillError(
            f"batch_size={size} is odd, but captions are joined in pairs; "
            f"take {size + 1}" + (f" or {size - 1}" if size > 1 else "")
        )
    units, parts = size // unit, processes * micro_batches
    if micro_batches < 1 or units < parts:
        raise GillError(
            f"batch_size={size} cannot be split over {processes} processes with "
            f"gradient_accumulation_steps={micro_batches}: each part needs {unit} rows or more"
        )
    edges = [unit * (units * i // parts) for i in range(parts + 1)]
    edges = edges[process * micro_batches : (process + 1) * micro_batches + 1]
    inner = [edge - edges[0] for edge in edges]
    slices = [slice(a, b) for a, b in zip(inner, inner[1:])]
    return Part(size, processes, slice(edges[0], edges[-1]), slices)


@cache
def _stream(device: torch.device):
    return torch.cuda.Stream(device)


@contextmanager
def beside(device: torch.device):
    """What a GPU is given inside, it does beside the work it has; what follows waits for it.

    On a CPU nothing changes. There is one such stream, so that its memory is its own: what is
    made inside may be let go once the host has waited for those who read it.
    """
    if device.type != "cuda":
        yield
        return
    with torch.cuda.stream(_stream(device)):
        yield
    torch.cuda.current_stream(device).wait_stream(_stream(device))


def several() -> bool:
    """Whether this process belongs to a group."""
    return dist.is_available() and dist.is_initialized()


def add_up(values: Tensor) -> Tensor:
    """Sum over all processes, in place."""
    if several():
        dist.all_reduce(values)
    return values


def add_up_counts(counts: Tensor, device) -> list[int]:
    """Counts that lie on the host, summed over all processes; one alone waits for no GPU."""
    return (add_up(counts.to(device)) if several() else counts).tolist()


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
