"""Notebooks side by side: in each lane one after another, a line of the terminal for each."""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from jupyter_client.manager import AsyncKernelManager
from nbclient.util import run_sync
from tqdm import tqdm

Item, Made = TypeVar("Item"), TypeVar("Made")


def side_by_side(
    lanes: Sequence[Sequence[Item]], run: Callable[[Item, AsyncKernelManager], Made], workers: int
) -> Iterator[Made]:
    """run(item, kernel) of every item, as they end; at most `workers` lanes at a time.

    The items of one lane run in order, each in a thread with a kernel manager of its own. Where
    one raises, or the iterator is closed, the kernels are stopped before it is left.
    """
    kernels, waiting = [], deque(deque(lane) for lane in lanes if lane)
    running: dict[Future, deque] = {}
    with ThreadPoolExecutor(workers) as pool:

        def fill() -> None:
            while waiting and len(running) < workers:
                lane = waiting.popleft()
                kernels.append(AsyncKernelManager(kernel_name="python3"))
                running[pool.submit(run, lane.popleft(), kernels[-1])] = lane

        try:
            fill()
            while running:
                ended = next(iter(wait(running, return_when=FIRST_COMPLETED).done))
                lane = running.pop(ended)
                made = ended.result()
                if lane:
                    waiting.appendleft(lane)
                fill()
                yield made
        finally:
            while not all(future.done() for future in running):
                for kernel in kernels:
                    if kernel.has_kernel:
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
