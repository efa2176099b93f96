"""How many steps of the sampler are enough? `python -m benchmarks.sampler_steps`, five minutes.

Table 1's stories drawn with fewer and with more steps, from the same noise, compared story by
story. Writes results/sampler_steps.json and the table in docs/benchmarks.md.
"""

import tempfile
import time
from collections.abc import Sequence

import pandas as pd
from tabulate import tabulate

from gill_lite.evaluation.evaluate import Evaluation, prepare
from gill_lite.evaluation.run import batches
from gill_lite.evaluation.tables import TABLES
from gill_lite.experiments.readme import placed
from gill_lite.files import read_text, write_json, write_text
from gill_lite.profiles import MINI
from gill_lite.provenance import collect, repository_root
from gill_lite.report.intervals import mean_interval, paired_interval

MOST = 25  # steps that all others are compared with
STEPS = (4, 5, 6, 8, 12, MOST)
CELLS = (
    ("glide", "captions5", 0),
    ("sd", "captions5", 0),
    ("gill", "captions5", 0),
    ("gill", "captions5_images4", 0),
)
METRICS = {"clip_similarity": "CLIP similarity", "attribute_accuracy": "attribute accuracy"}
HEADS = ("model", "context", "steps", *(f"{name}, difference" for name in METRICS.values()), "time")


def scores(table: Evaluation, cell: tuple[str, str, int], steps: int) -> tuple[pd.DataFrame, float]:
    """The scores of a cell's stories, drawn in so many steps, and the seconds that took."""
    for drawer in table.models.values():
        backbones = drawer.responder.backbones
        backbones.profile = backbones.profile.replace(num_inference_steps=steps)
    items, rows, started = table.items([cell]), [], time.perf_counter()
    for cut in batches([item.cell for item in items], table.batch_size):
        rows += table.scorer([items[i] for i in cut])
    return pd.DataFrame(rows), time.perf_counter() - started


def compared(found: dict[int, tuple[pd.DataFrame, float]]) -> list[dict]:
    """A row for each number of steps: the differences to MOST steps, mean, low and high."""
    most, longest = found[MOST]
    rows = []
    for steps, (frame, seconds) in found.items():
        row = {"steps": steps, "time": seconds / longest}
        for name in METRICS:
            interval = paired_interval(frame[name], most[name])
            row[name] = [interval.mean, interval.low, interval.high]
            row[f"{name} itself"] = mean_interval(frame[name]).mean
        rows.append(row)
    return rows


def text(rows: Sequence[dict]) -> str:
    """The table of the page: the last of each cell's rows has the scores themselves."""
    cells = []
    for row in rows:
        last = row["steps"] == MOST
        told = (f"{row[f'{n} itself']:.3f} itself" if last else _signed(*row[n]) for n in METRICS)
        cells.append([row["model"], row["context"], row["steps"], *told, f"{row['time']:.2f}"])
    return tabulate(cells, HEADS, tablefmt="github", disable_numparse=True)


def _signed(mean: float, low: float | None, high: float | None) -> str:
    return f"{mean:+.3f}" + (f" [{low:+.3f}, {high:+.3f}]" if low is not None else "")


def main(stories: int = 100) -> None:
    """Measure, write the result and the page."""
    began, root, rows = time.time(), repository_root(), []
    with tempfile.TemporaryDirectory() as folder:
        table = prepare(TABLES["1"], folder, seeds=[0], num_examples=stories, cache_dir=False)
        scores(table, CELLS[0], 1)  # what is done once: true pictures, thread pools
        for cell in CELLS:
            found = {steps: scores(table, cell, steps) for steps in STEPS}
            about = {"model": table.table.labels[cell[0]], "context": cell[1]}
            rows += [about | row for row in compared(found)]
            print(text(rows), flush=True)
    about = collect(began, "mini", "python -m benchmarks.sampler_steps")
    result = {"rows": rows, "stories": stories, "used": MINI.num_inference_steps}
    write_json(root / "results" / "sampler_steps.json", result | {"provenance": about})
    page = root / "docs" / "benchmarks.md"
    write_text(page, placed(read_text(page), "steps", text(rows)))


if __name__ == "__main__":
    main()
