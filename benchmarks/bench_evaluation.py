"""Evaluation: examples a second of Table 1, beside one example at a time; where the time goes."""

import cProfile
import pstats
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import reference
from benchmarks.record import faster, keep, versus
from gill_lite.evaluation.cache import SampleCache
from gill_lite.evaluation.evaluate import prepare
from gill_lite.evaluation.run import batches
from gill_lite.evaluation.tables import TABLES

NOISE = {"clip_similarity": 2e-3, "lpips": 2e-2, "attribute_accuracy": 0.17}
# Of which functions the whole time is told, with all that they call; none calls another.
PARTS = {
    "drawing: the denoiser of Stable Diffusion and GILL": ("drawing.py", "denoise"),
    "drawing: the denoiser of GLIDE": ("glide.py", "sample"),
    "drawing: the autoencoder": ("drawing.py", "decode"),
    "prompts: language model, CLIP, text encoder, mapper": ("drawers.py", "encode"),
    "CLIP of drawn and true pictures": ("metrics.py", "features"),
    "LPIPS": ("metrics.py", "lpips"),
    "attribute accuracy": ("metrics.py", "attributes"),
    "opening the true pictures": ("scorer.py", "truth"),
}


@pytest.fixture
def table(tmp_path, quick):
    """Table 1 of a few stories, one set of joints, no picture of an earlier run at hand."""
    stories = 4 if quick else 16
    spec = replace(TABLES["1"], learned=("gill",))
    return prepare(spec, tmp_path, seeds=[0], num_examples=stories, cache_dir=False)


def scores(table, cache=None) -> list[dict]:
    """The table's scores as a run computes them: in batches, cell by cell."""
    items, table.scorer.cache = table.items(), cache
    table.scorer.known_features.clear()
    cuts = batches([item.cell for item in items], table.batch_size)
    return [row for cut in cuts for row in table.scorer([items[i] for i in cut])]


def same(ours, theirs) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name, noise in NOISE.items():
            assert one[name] == pytest.approx(other[name], abs=noise), name


def test_table(benchmark, table, tmp_path, quick):
    items = table.items()
    what = f"{len(items)} examples of Table 1, every picture drawn"
    reference.evaluate(table.scorer, items[:1])
    scores(table)
    seconds = versus(
        benchmark, what, "mini", lambda: scores(table),
        lambda: reference.evaluate(table.scorer, items),
        faster(4), same, rounds=1, warmup=0,
    )  # fmt: skip
    profile = cProfile.Profile()
    profile.runcall(scores, table)
    benchmark.extra_info["where"] = shares(profile)
    cache = SampleCache(tmp_path / "cache")
    first = scores(table, cache)
    started = time.perf_counter()
    again = scores(table, cache)
    took = time.perf_counter() - started
    same(first, again)
    what = f"{len(items)} examples of Table 1, pictures kept from another table"
    keep(benchmark, what, "mini", took, faster(4), reference=seconds)


def shares(profile: cProfile.Profile) -> dict[str, float]:
    """What part of the profiled time each of PARTS took; the rest is "other"."""
    found = pstats.Stats(profile).stats  # (file, line, function) -> (..., ..., own, whole, ...)
    whole = sum(times[2] for times in found.values())
    named = [(Path(path).name, name, times[3]) for (path, _, name), times in found.items()]
    parts = {
        label: sum(t for *place, t in named if place == [*key]) for label, key in PARTS.items()
    }
    parts["other"] = whole - sum(parts.values())
    return {label: round(seconds / whole, 4) for label, seconds in parts.items()}
