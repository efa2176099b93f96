"""A process that searches or builds an index, and what memory it held: run by bench_retrieval.

`python -m benchmarks.held search INDEX` or `build SHARDS INDEX` prints MB (2**20 bytes).
"""

import json
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from gill_lite.answering.index import ImageIndex
from gill_lite.fetching import convert
from gill_lite.model import official

EVERY = 0.002  # seconds between two looks


def held(own: bool) -> float:
    """Resident MB of this process; `own`: without pages of files, which the system takes back."""
    info = psutil.Process().memory_info()
    return (info.rss - (getattr(info, "shared", 0) if own else 0)) / 2**20


@contextmanager
def watched(own: bool):
    """Fills a dict with the MB held before the block and the most within it."""
    found, done = {"before": held(own)}, threading.Event()
    found["peak"] = found["before"]

    def watch() -> None:
        while not done.wait(EVERY):
            found["peak"] = max(found["peak"], held(own))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def search(folder: Path) -> dict:
    """Load an index and look for one picture."""
    with watched(own=False) as found:
        index = ImageIndex.load(folder)
        index.search(torch.ones(1, index.embeddings.shape[1]), k=5)
        found["peak"] = max(found["peak"], held(own=False))
    return found


def build(shards: Path, folder: Path) -> dict:
    """Make an index of all shards of embeddings."""
    files = official.embedding_files(shards, trust_pickle=True)
    width = official.read_embeddings(files[0])[1].shape[1]
    with watched(own=True) as found:
        convert.write_index(files, folder, width, {})
    return found


if __name__ == "__main__":
    task = {"search": search, "build": build}[sys.argv[1]]
    print(json.dumps(task(*map(Path, sys.argv[2:]))))
