"""The stages of the pretraining: what each needs and is to reach, and several side by side."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TypeVar

import torch

from gill_lite.world.scene import ATTRIBUTES

Made = TypeVar("Made")
STAGES = ("clip", "lm", "autoencoder", "denoiser", "trunk", "probes", "glide")
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
    What one raises is raised when those beside it have ended; no other begins after it.
    """
    waiting, failed = list(names), None
    under_way: dict[Future, str] = {}
    with ProcessPoolExecutor(
        workers, get_context("spawn"), _begin, (threads,), max_tasks_per_child=1
    ) as pool:
        while True:
            for name in list(waiting):
                missing = {*waiting, *under_way.values()} & set(NEEDS.get(name, ()))
                if not missing and not failed and len(under_way) < workers:
                    waiting.remove(name)
                    under_way[pool.submit(train, name)] = name
            if not under_way:
                break
            ended = next(iter(wait(under_way, return_when=FIRST_COMPLETED).done))
            name = under_way.pop(ended)
            error = ended.exception()
            if error is None:
                yield name, ended.result()
            elif failed or under_way:
                print(f"stage {name}: {error}", file=sys.stderr, flush=True)
            failed = failed or error
    if failed:
        raise failed


def _begin(threads: int) -> None:
    """In a stage's process: its threads, and that it ends where the one that began it is killed."""
    torch.set_num_threads(threads)
    Thread(target=_end_with, args=(parent_process(),), daemon=True).start()


def _end_with(parent) -> None:
    parent.join()
    os._exit(1)
