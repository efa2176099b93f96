"""Growth: time against the length of a prompt, the batch, the index and the number of stories."""

import time

import pytest
import torch
from torch.nn.functional import normalize

from benchmarks.bench_answering import prompts
from gill_lite.answering.decode import Sampling, generate
from gill_lite.answering.index import ImageIndex
from gill_lite.evaluation.evaluate import prepare
from gill_lite.evaluation.tables import TABLES

REPEATS = 5


def seconds(run, repeats: int = REPEATS) -> float:
    """The fastest of a few runs, after one that is not counted."""
    taken = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def grow(benchmark, what: str, unit: str, sizes, run_of, repeats: int = REPEATS) -> None:
    """Time `run_of(size)()` for each size; the points go into pytest-benchmark's file."""
    points = [seconds(run_of(size), repeats) for size in sizes]
    benchmark.extra_info["growth"] = {"what": what, "unit": unit, "x": list(sizes), "y": points}
    benchmark.pedantic(run_of(sizes[0]), rounds=1)


@pytest.mark.parametrize("words", [1, 32])
def test_prompt_length(benchmark, shaped, prompt_of, quick, words):
    weights, responder = shaped
    if "125m" in weights:
        pytest.skip("one shape tells how time grows")
    whole, sampling = prompt_of(responder, 960), Sampling(max_words=words, min_words=words)

    def run_of(length: int):
        prompt = whole[:length][None]  # (1, T, D)
        return lambda: generate(responder.gill, prompt, sampling=sampling)

    sizes = (60, 120, 240, 480, 960) if words == 1 else (60, 120, 240, 480, 900)
    what = "reading a prompt" if words == 1 else f"reading, then {words} words"
    grow(benchmark, what, "tokens of the prompt", sizes[: 2 if quick else None], run_of)


def test_batch(benchmark, mini, quick):
    def run_of(size: int):
        asked = prompts(size)
        return lambda: mini.respond_batch(asked, force_image=True)

    sizes = (1, 2, 4, 8, 16)[: 2 if quick else None]
    grow(benchmark, "answers with a picture", "prompts in the batch", sizes, run_of, repeats=2)


def test_index_size(benchmark, quick):
    rows = normalize(torch.randn(1_000_000 if not quick else 100_000, 256), dim=1).half()
    query = rows[:1].float()

    def run_of(size: int):
        index = ImageIndex(rows[:size], range(size))
        return lambda: index.search(query, k=5)

    sizes = [size for size in (10_000, 30_000, 100_000, 300_000, 1_000_000) if size <= len(rows)]
    grow(benchmark, "top 5, half precision", "pictures in the index", sizes, run_of)


def test_stories(benchmark, tmp_path, quick):
    spec, stories = TABLES["1"], 4 if quick else 64
    table = prepare(spec, tmp_path, seeds=[0], num_examples=stories, cache_dir=False)

    def run_of(count: int):
        items = table.items([("gill", "captions5", 0)], count)
        cuts = [items[i : i + table.batch_size] for i in range(0, count, table.batch_size)]
        return lambda: [table.scorer(cut) for cut in cuts]

    sizes = (1, 2, 4, 8, 16, 32, 64)[: 3 if quick else None]
    grow(benchmark, "drawn and scored", "stories", sizes, run_of, repeats=1)
