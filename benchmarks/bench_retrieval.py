"""Retrieval: top 5 of as many pictures as CC3M has; memory of the index and of building it."""

import json
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from benchmarks import reference
from benchmarks.record import as_long, at_most, keep, versus
from gill_lite.answering.index import EMBEDDINGS, LONG_IDS, ImageIndex, Names
from gill_lite.provenance import repository_root

PICTURES, WIDTH, BLOCK = 3_300_000, 256, 65_536
ROOM = 100  # MB beside the matrix
SHARDS = (4, 16)  # of BLOCK rows, to build from


def names(count: int):
    """Ids as CC3M's files have them, one after another."""
    return (f"{place:09d}" for place in range(count))


@pytest.fixture(scope="module")
def rows(quick) -> torch.Tensor:
    """Rows (N, P) of unit length in half precision: one block, turned by a column a time."""
    block = torch.randn(BLOCK, WIDTH, generator=torch.Generator().manual_seed(0))
    block = normalize(block, dim=1).half()
    made = torch.empty(PICTURES // (10 if quick else 1), WIDTH, dtype=torch.float16)
    for turn, start in enumerate(range(0, len(made), BLOCK)):
        made[start : start + BLOCK] = block[: len(made) - start].roll(turn, 1)
    return made


@pytest.fixture(scope="module")
def index(rows) -> ImageIndex:
    return ImageIndex(rows, Names(names(len(rows))))


@pytest.fixture(scope="module")
def query() -> torch.Tensor:
    return normalize(torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(1)), dim=1)


def what(index) -> str:
    return f"top 5 of {len(index) / 1e6:.1f} million x {WIDTH}"


def test_one_query_beside_reading_once(benchmark, index, query, rows):
    versus(
        benchmark, f"{what(index)}; reference: reading the matrix once", "random, fp16",
        lambda: index.search(query, k=5), lambda: reference.read_once(rows),
        as_long(1.3), lambda ours, theirs: None, rounds=15,
    )  # fmt: skip


def test_one_query_beside_a_product_in_float32(benchmark, index, query, rows, quick):
    whole = rows.float()  # (N, P), twice as large

    def same(ours, theirs) -> None:
        torch.testing.assert_close(ours.scores[0], theirs[0])
        assert torch.equal(ours.indices[0], theirs[1])

    versus(
        benchmark, f"{what(index)}; reference: one product of a float32 matrix", "random, fp16",
        lambda: index.search(query, k=5), lambda: reference.search(whole, query[0], 5),
        None, same, rounds=2 if quick else 7,
    )  # fmt: skip


def child(*arguments) -> dict:
    """What `python -m benchmarks.held` says in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.held", *map(str, arguments)]
    done = subprocess.run(command, cwd=repository_root(), check=True, capture_output=True)
    return json.loads(done.stdout)


def test_memory_of_the_index(benchmark, rows, tmp_path):
    save_file({"embeddings": rows}, tmp_path / EMBEDDINGS)
    with open(tmp_path / LONG_IDS, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": name}) + "\n" for name in names(len(rows)))
    found = benchmark.pedantic(lambda: child("search", tmp_path))
    matrix = rows.nbytes / 2**20
    keep(
        benchmark, "memory of loading it and of one query; reference: the matrix", "random, fp16",
        found["peak"] - found["before"], at_most(matrix + ROOM), "MB", matrix,
    )  # fmt: skip


def test_memory_of_building_from_shards(benchmark, rows, tmp_path):
    peaks = {}
    for number in range(max(SHARDS)):
        part = rows[number * BLOCK % len(rows) :][:BLOCK].numpy()
        record = {"paths": list(names(len(part))), "embeddings": part}
        (tmp_path / f"cc3m_{number:03d}.npy").write_bytes(pickle.dumps(record))
        if number + 1 in SHARDS:
            found = child("build", tmp_path, tmp_path / f"index-{number}")
            peaks[number + 1] = found["peak"] - found["before"]
    benchmark.pedantic(lambda: child("build", tmp_path, tmp_path / "index"))
    few, many = (peaks[number] for number in SHARDS)
    keep(
        benchmark, f"memory of building from {SHARDS[1]} shards; reference: from {SHARDS[0]}",
        "random, fp16", many, as_long(1.2), "MB", few,
    )  # fmt: skip
