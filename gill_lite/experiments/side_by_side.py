"""Notebooks side by side, each with a line of the terminal for its progress."""

import signal
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

from jupyter_client.manager import AsyncKernelManager
from nbclient.util import run_sync
from tqdm import tqdm

Item = TypeVar("Item")
Made = TypeVar("Made")


def side_by_side(
    items: Sequence[Item],
    run: Callable[[Item, AsyncKernelManager], Made],
    workers: int,
    beside: Callable[[Item, list[Item], list[Item]], bool],
) -> Generator[tuple[Item, Made], None, None]:
    """(item, run(item, kernel)) of every item, as they end; at most `workers` at a time.

    Each runs in a thread with a kernel manager of its own. They begin in order, but for those that
    have to wait: `beside(item, under_way, ended)` says whether one may begin. Where one raises, or
    the iterator is closed, the kernels are stopped before it is left.
    """
    kernels, waiting, under_way, over = [], list(items), {}, []
    with ThreadPoolExecutor(workers) as pool:

        def fill() -> None:
            for item in list(waiting):
                free = len(under_way) < workers
                if not under_way or (free and beside(item, list(under_way.values()), over)):
                    waiting.remove(item)
                    kernels.append(AsyncKernelManager(kernel_name="python3"))
                    under_way[pool.submit(run, item, kernels[-1])] = item

        try:
            fill()
            while under_way:
                ended = next(iter(wait(under_way, return_when=FIRST_COMPLETED).done))
                item, made = under_way.pop(ended), ended.result()
                over.append(item)
                fill()
                yield item, made
        finally:
            while not all(future.done() for future in under_way):
                for kernel in kernels:
                    with suppress(RuntimeError):  # none is running: not yet, or no longer
                        run_sync(kernel.signal_kernel)(signal.SIGTERM)
                time.sleep(0.1)


class Line:
    """A file for a notebook's stderr: the progress bar that it drew last, in a line of its own.

    title: what stands there before the first one.
    """

    def __init__(self, title: str):
        self.bar = tqdm(bar_format="{desc}", desc=title, leave=False)

    def write(self, text: str) -> None:
        """Show the last line of `text`."""
        lines = text.replace("\r", "\n").split("\n")
        shown = next((line for line in reversed(lines) if line.strip()), "")
        if shown:
            self.bar.set_description_str(shown.strip())

    def flush(self) -> None:
        """Every write is shown at once."""

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.bar.close()
