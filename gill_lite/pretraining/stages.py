"""The stages of the pretraining: what each needs and is to reach, and several side by side."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, TypeVar

import torch

from gill_lite.errors import GillError
from gill_lite.world.scene import ATTRIBUTES

Made = TypeVar("Made")
STAGES = ("clip", "autoencoder", "denoiser", "lm", "glide", "trunk", "probes")  # longest way first
NEEDS = {"denoiser": ("clip", "autoencoder"), "glide": ("clip",)}  # the others stand alone
TARGETS = {  # on held-out data, at least
    "clip": {"share_of_oracle": 0.93} | {f"pooled_{name}": 0.98 for name in ATTRIBUTES},
    "lm": {
        f"{kind}_{name}": 0.97
        for kind in ("story", "dialogue", "state_probe")
        for name in ATTRIBUTES
    },
    "autoencoder": {"psnr_db": 28.0},
    "probes": {f"drawn_{name}": 0.99 for name in ATTRIBUTES}
    | {f"autoencoded_{name}": 0.98 for name in ATTRIBUTES},
    "denoiser": {"seen_mean": 0.98, "novel_mean": 0.96}
    | {f"{split}_{name}": 0.97 for split in ("seen", "novel") for name in ("shape", "color")},
    "trunk": {},
    "glide": {"seen_mean": 0.90, "novel_mean": 0.90},
}


def side_by_side(
    names: Sequence[str], train: Callable[[str], Made], workers: int, threads: int = 1
) -> Iterator[tuple[str, Made]]:
    """(name, train(name)) of every stage, as they end: `workers` at a time, a process each.

    They begin in order, but for those that wait for what they need. threads: of torch in each.
    Where one fails, those beside it go on to their end, no other begins, and GillError is raised.
    Where this is left otherwise (Ctrl-C), the processes are ended first.
    """
    waiting, failures = list(names), []
    under_way: dict[Any, tuple[str, BaseProcess]] = {}  # by what their results come through
    try:
        while True:
            for name in list(waiting):
                to_come = {*waiting, *(other for other, _ in under_way.values())}
                free = len(under_way) < workers and not failures
                if free and not to_come & set(NEEDS.get(name, ())):
                    waiting.remove(name)
                    result, process = _begun(train, name, threads)
                    under_way[result] = name, process
            if not under_way:
                break
            ended: Any = wait(list(under_way))[0]
            name, process = under_way.pop(ended)
            made, error = _received(ended, process)
            if error is None:
                yield name, made
            else:
                failures.append(f"stage {name}: {error}")
                if under_way:
                    print(failures[-1], file=sys.stderr, flush=True)
    finally:
        for _, process in under_way.values():
            process.terminate()
            process.join()
    if failures:
        raise GillError(failures[0])


def _begun(train, name: str, threads: int):
    """A connection that `train(name)` will come through, and the process that makes it."""
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    os.environ.setdefault("TQDM_MININTERVAL", "5")  # seconds; bars share a line of the terminal
    process = context.Process(target=_stage, args=(there, train, name, threads))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the process; we end it ourselves
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    there.close()
    return here, process


def _stage(result: Connection, train, name: str, threads: int) -> None:
    """In a process of its own: send (train(name), None) or (None, what went wrong)."""
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, lambda *about: sys.exit(1))  # what it holds is given back
    Thread(target=_end_with, args=(parent_process(),), daemon=True).start()
    try:
        result.send((train(name), None))
    except (GillError, OSError) as error:
        result.send((None, str(error)))


def _received(result: Connection, process) -> tuple:
    """What `_stage` sent; of a process that died, how."""
    try:
        return result.recv()
    except EOFError:
        process.join()
        how = f"its process ended with {process.exitcode} (-9 may be want of memory)"
        return None, f"{how}; the same command goes on where it stopped"


def _end_with(parent) -> None:
    """End this process as soon as the one that began it is gone, killed say."""
    parent.join()
    os._exit(1)
