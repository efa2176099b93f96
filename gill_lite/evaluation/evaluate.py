"""The evaluation of a table: prepare, run, results, save.

evaluation = prepare(TABLES["1"], "runs/mine", seeds=[0], num_examples=20)
run = evaluation.run()
save("runs/mine", run, results(evaluation.table, evaluation.config, run, time.time()))
"""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pandas as pd

from gill_lite import provenance
from gill_lite.datasets.reading import MAX_SKIPPED
from gill_lite.errors import GillError
from gill_lite.evaluation import tasks
from gill_lite.evaluation.cache import SampleCache, default_cache
from gill_lite.evaluation.drawers import Models, joints_folders, load_models, weights_sha256
from gill_lite.evaluation.protocol import get_protocol
from gill_lite.evaluation.run import BATCH, RunResult, WorkItem, run_resumable, work_items
from gill_lite.evaluation.shards import ALL, Shard, refuse_other_cuts
from gill_lite.evaluation.tables import Table
from gill_lite.files import write_json, write_text
from gill_lite.model.backbones import fingerprint
from gill_lite.model.checkpoint import WEIGHTS
from gill_lite.profiles import Profile, get_profile
from gill_lite.report import claims, numbers, spread
from gill_lite.report.scores import scores_frame
from gill_lite.training.recipes import RECIPES


@dataclass
class Evaluation:
    """A table ready to be computed."""

    table: Table
    dataset: tasks.Dataset
    models: Models
    scorer: Any  # a batch of work items -> a row of scores each; see `Table.scorer`
    seeds: tuple[int, ...]
    config: dict  # all that the scores depend on; JSON
    folder: Path  # of the run's rows
    batch_size: int = BATCH
    max_skipped: float = MAX_SKIPPED
    count: int | None = None  # of examples, times those of the context; None: all

    def items(self, cells=None, count: int | None = None) -> list[WorkItem]:
        """The work: all examples, or the first `count`, in all cells or in `cells`."""
        names, made = self.dataset.ids, []
        for cell in self.table.cells(self.seeds) if cells is None else cells:
            own = self.count and self.table.size(cell, self.count)
            made += work_items(names[:own][:count], [cell])
        return made

    def run(self, shard: Shard = ALL, progress: bool | None = None) -> RunResult:
        """Score every item, or a shard's share; goes on where it was killed.

        Raises GillError where the folder holds a run with another configuration.
        """
        refuse_other_cuts(self.folder, shard)
        items = self.items()
        return run_resumable(
            shard.share(items, self.batch_size),
            self.scorer,
            shard.folder(self.folder),
            shard.config(self.config, items, self.batch_size),
            self.batch_size,
            progress=progress,
            description=f"{self.table.name}{shard.label}",
            fault=self.dataset.fault,
            max_skipped=self.max_skipped,
        )


def prepare(
    table: Table, output_dir, profile: str | Profile = "mini", seeds: Sequence[int] | None = None,
    num_examples: int | None = None, run_seed: int = 0, protocol: str = "corrected",
    data: tuple | None = None, joints: Sequence = (), metrics: Sequence[str] | None = None,
    device="cpu", dtype=None, backbones: dict | None = None, cache_dir=None,
    batch_size: int = BATCH, joints_root=None, models: Models | None = None,
    max_skipped: float = MAX_SKIPPED, methods: Sequence[str] | None = None,
) -> Evaluation:  # fmt: skip
    """Read the data and load the models of a table.

    seeds, num_examples, metrics, methods: by default the table's, or as many seeds as joints are
    given. data: (JSON file, image folder) in the official format; without it the mini world's,
    made once in `output_dir`. joints, joints_root, backbones: see `drawers`; with joints or
    backbones of one's own, and in other profiles, the table is `elsewhere`. models: those of
    another table of the same methods. cache_dir: where pictures are kept for all tables
    (`runs/cache`); False keeps none. max_skipped: the share of `data` that may be unusable.
    Raises GillError for whatever is missing, before anything is loaded where that can be told.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    if profile.name != "mini" or joints or backbones:
        table = table.elsewhere()
    table = table.of(methods) if methods else table
    if seeds is None:
        seeds = range(max(1, len(joints) // len(table.learned))) if joints else table.seeds
    chosen, seeds = get_protocol(protocol), tuple(seeds)
    folders = joints_folders(profile, seeds, joints, table.learned, joints_root)
    table = _measuring(table.under(chosen), metrics)
    count = None if data else num_examples or table.count
    dataset = _dataset(table, Path(output_dir), data, count or num_examples, max_skipped)
    models = models or load_models(profile, folders, table.baselines, device, dtype, backbones)
    cache = None if cache_dir is False else SampleCache(cache_dir or default_cache())
    scorer = resolve_name(table.scorer)(dataset, models, table, chosen, run_seed, cache)
    first = next(iter(models.values()))
    config = {
        "table": table.name,
        "protocol": asdict(chosen),
        "run_seed": run_seed,
        "profile": asdict(first.responder.profile),
        "data": dataset.about(),
        "metrics": list(scorer.metrics),
        "weights": _weights(first, profile.name),
        "seeds": list(seeds),
        "count": count,
        "joints": {f"{method}-{seed}": provenance.sha256_of(folder / WEIGHTS)
                   for (method, seed), folder in folders.items()},
        "baselines": {m: models[m, 0].fingerprint for m in table.baselines if m != "sd"},
    }  # fmt: skip
    if lms := {
        m: fingerprint(models[m, seed].responder.backbones)
        for m, seed in folders
        if m in RECIPES and RECIPES[m].lm
    }:
        config["lms"] = lms  # of methods that stand on a language model of their own
    config = json.loads(json.dumps(config))  # as it will be read back
    folder = Path(output_dir) / table.name
    return Evaluation(
        table, dataset, models, scorer, seeds, config, folder, batch_size, max_skipped, count
    )


def _measuring(table: Table, metrics: Sequence[str] | None) -> Table:
    """The table with these of its metrics alone. Raises GillError for one it does not have."""
    for name in metrics or ():
        if name not in table.metrics:
            known = ", ".join(table.metrics)
            raise GillError(f"there is no metric '{name}' in this table; known are {known}")
    return replace(table, metrics=tuple(metrics or table.metrics))


def _dataset(table: Table, output_dir: Path, data, count: int | None, max_skipped: float):
    if data is not None:
        annotations, images = data
        return tasks.of_files(table.task, annotations, images, count, max_skipped)
    most = max(table.size(cell, count) for cell in table.cells(table.seeds))
    kind = "" if table.split == "seen" else f"-{table.split}"
    return tasks.of_world(
        table.task, output_dir / f"{table.task.name}{kind}-{most}", most, table.split
    )


def _weights(drawer, profile_name: str) -> dict:
    """Fingerprints of all frozen weights, and their dtype."""
    backbones = drawer.responder.backbones
    manifest = provenance.repository_root() / "data" / profile_name / "manifest.json"
    return {
        "manifest": provenance.sha256_of(manifest),
        "lm_clip_text_encoder": fingerprint(backbones),
        "sampler": drawer.fingerprint,
        "vae": weights_sha256(backbones.pipeline.vae),
        "dtype": str(backbones.pipeline.unet.dtype),
    }


def results(
    table: Table, config: dict, run: RunResult, started: float, command: str = "",
    measured: dict | None = None, learned: Collection[str] = RECIPES,
) -> dict:  # fmt: skip
    """What results/<name>.json holds: rows, verdicts, counts, settings, provenance, figures.

    table, config: of the `Evaluation`. started: `time.time()` when this start began. measured:
    by metric, what gives `intervals()` by (method, context) and that `of_bound` of a claim, where
    it is no mean over examples. learned: the methods that were trained with a seed.
    """
    profile = config["profile"]["name"]
    made = provenance.collect(started, profile, command or table.command, run.earlier_seconds)
    if run.lost:
        config = {**config, "data": _without(config["data"], run.lost)}
    return {
        "table": table.name,
        "title": table.title,
        "topic": table.topic,
        **judged(table, scores_frame(run.rows), profile, measured, learned),
        "counts": run.counts,
        "settings": {
            f"num_{table.task.examples}": config["count"] or config["data"]["taken"],
            "seeds": config["seeds"],
            "run_seed": config["run_seed"],
        },
        "provenance": {**made, "inputs": config},
        "figures": [],
    }


def _without(data: dict, lost: Counter) -> dict:
    """What is said of the data, when the examples whose pictures could not be used are known."""
    counts = {name: data[name] - lost.total() for name in ("usable", "taken")}
    return {**data, **counts, "skipped": dict(Counter(data["skipped"]) + lost)}


def judged(
    table: Table, frame: pd.DataFrame, profile="mini", measured: dict | None = None,
    learned: Collection[str] = RECIPES,
) -> dict:  # fmt: skip
    """What a results file says of the scores: rows, verdicts, spread, verdicts_by_lm."""
    measured = measured or {}
    labels = numbers.MINI_METRICS if profile == "mini" else numbers.METRICS
    labels = labels | numbers.CHANGED | numbers.RECALLS | numbers.FRECHET
    labels = labels | numbers.SEEING | numbers.EDITING
    ours = {metric: source.intervals() for metric, source in measured.items()}
    deciding = {metric: source.of_bound for metric, source in measured.items()}
    about = [claim for claim in claims.read_claims() if claim.table == table.topic]
    return {
        "rows": numbers.result_rows(
            frame, table.topic, table.all_contexts, labels, table.labels, ours, learned
        ),
        "verdicts": [claims.judge(claim, frame, deciding, learned) for claim in about],
        "spread": spread.rows(frame, table.contexts),
        "verdicts_by_lm": spread.verdicts(about, frame),
    }


def save(output_dir, run: RunResult, result: dict) -> Path:
    """Write the results file and, beside it, the score of every picture."""
    folder, name = Path(output_dir) / "results", result["table"]
    write_text(folder / f"{name}_scores.csv", scores_frame(run.rows).to_csv(index=False))
    return write_json(folder / f"{name}.json", result)
