"""A table as a description, and its evaluation: prepare, run, results, save.

spec = catalog.TABLES["1"]
evaluation = prepare(spec, "runs/mine", seeds=[0], num_examples=20)
result = results(evaluation, evaluation.run(), time.time())
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from gill_lite import provenance
from gill_lite.errors import GillError
from gill_lite.evaluation import tasks
from gill_lite.evaluation.cache import SampleCache, default_cache
from gill_lite.evaluation.drawers import Models, joints_folders, load_models, weights_sha256
from gill_lite.evaluation.judge import METRICS, Judge
from gill_lite.evaluation.protocol import Context, Protocol, get_protocol
from gill_lite.evaluation.run import RunResult, WorkItem, run_resumable, scores_frame, work_items
from gill_lite.evaluation.scorer import Scorer
from gill_lite.evaluation.shards import ALL, Shard, refuse_other_cuts
from gill_lite.files import write_json, write_text
from gill_lite.model.backbones import fingerprint
from gill_lite.model.checkpoint import WEIGHTS
from gill_lite.profiles import Profile, get_profile
from gill_lite.report import claims, spread
from gill_lite.report import numbers as tables
from gill_lite.training.recipes import RECIPES, seeds_of

BATCH = 32  # pictures drawn together
WORLD_EXAMPLES = 300  # of the mini world, unless another number is asked for


@dataclass(frozen=True)
class TableSpec:
    """A table: a dataset, how much of it is seen, who draws, and what is measured."""

    number: str  # what the user types
    name: str  # of its results file
    title: str
    task: tasks.Task
    contexts: tuple[Context, ...]
    baselines: tuple[str, ...] = ("sd",)  # methods that take text alone and have no seeds
    learned: tuple[str, ...] = ("gill",)  # methods with seeds of their joints, see recipes
    metrics: tuple[str, ...] = METRICS
    topic: str = ""  # in data/claims.csv and data/paper_results.csv; the task's name unless given
    labels: dict[str, str] = field(default_factory=lambda: tables.METHODS)  # method -> heading
    text_contexts: tuple[Context, ...] = ()  # of the baselines; else those without images

    def __post_init__(self):
        object.__setattr__(self, "topic", self.topic or self.task.name)
        plain = tuple(context for context in self.contexts if not context.images)
        object.__setattr__(self, "text_contexts", self.text_contexts or plain)

    @property
    def all_contexts(self) -> tuple[Context, ...]:
        """Those of the baselines, then those of learned methods alone."""
        return tuple(dict.fromkeys((*self.text_contexts, *self.contexts)))

    def cells(self, seeds: Sequence[int]) -> list[tuple[str, str, int]]:
        """(method, context, seed): baselines once, what is learned with each of its seeds."""
        cells = [(m, context.name, 0) for m in self.baselines for context in self.text_contexts]
        return cells + [
            (method, context.name, seed)
            for method in self.learned
            for seed in seeds_of(method, seeds)
            for context in self.contexts
        ]

    def elsewhere(self) -> "TableSpec":
        """The table with what is to be had outside the mini world: no GLIDE, no other LMs."""
        learned = tuple(name for name in self.learned if not RECIPES[name].lm)
        return replace(self, baselines=("sd",), learned=learned)

    def under(self, protocol: Protocol) -> "TableSpec":
        """The table as `protocol` has it; the official one has files and a title of its own."""
        if protocol.name == "corrected":
            return self
        name, title = f"{self.name}_{protocol.name}", f"{self.title} ({protocol.name} protocol)"
        return replace(self, name=name, title=title)


@dataclass
class Evaluation:
    """A table ready to be computed."""

    spec: TableSpec
    dataset: tasks.Dataset
    models: Models
    scorer: Scorer
    seeds: tuple[int, ...]
    config: dict  # all that the scores depend on; JSON
    folder: Path  # of the run's rows
    batch_size: int = BATCH

    def items(self, cells=None, count: int | None = None) -> list[WorkItem]:
        """The work: all examples, or the first `count`, in all cells or in `cells`."""
        names = [example.example_id for example in self.dataset.examples[:count]]
        return work_items(names, self.spec.cells(self.seeds) if cells is None else cells)

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
            description=f"{self.spec.name}{shard.label}",
        )


def prepare(
    spec: TableSpec, output_dir, profile: str | Profile = "mini", seeds: Sequence[int] = (0, 1, 2),
    num_examples: int | None = None, run_seed: int = 0, protocol: str = "corrected",
    data: tuple | None = None, joints: Sequence = (), metrics: Sequence[str] | None = None,
    device="cpu", dtype=None, backbones: dict | None = None, cache_dir=None,
    batch_size: int = BATCH, joints_root=None, models: Models | None = None,
) -> Evaluation:  # fmt: skip
    """Read the data and load the models of a table.

    data: (JSON file, image folder) in the official format; without it the mini world's, made
    once in `output_dir`. joints, joints_root, backbones: see `models.load_models`; with joints or
    backbones of one's own, and in other profiles, the table is `elsewhere`. models: those of
    another table of the same methods. cache_dir: where pictures are kept for all tables
    (`runs/cache`); False keeps none. Raises GillError for whatever is missing, before anything is
    loaded where that can be told.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    if profile.name != "mini" or joints or backbones:
        spec = spec.elsewhere()
    chosen = get_protocol(protocol)
    folders = joints_folders(profile, seeds, joints, spec.learned, joints_root)
    spec = replace(spec.under(chosen), metrics=tuple(metrics or spec.metrics))
    dataset = _dataset(spec.task, Path(output_dir), data, num_examples)
    models = models or load_models(
        profile, seeds, joints, device, dtype, backbones, spec.baselines, spec.learned, joints_root
    )
    first = next(iter(models.values()))
    judge = Judge(first.responder.backbones, _measurable(spec.metrics, dataset))
    cache = None if cache_dir is False else SampleCache(cache_dir or default_cache())
    contexts = {context.name: context for context in spec.all_contexts}
    scorer = Scorer(dataset, models, judge, chosen, run_seed, cache, contexts)
    config = {
        "table": spec.name,
        "protocol": asdict(chosen),
        "run_seed": run_seed,
        "profile": asdict(first.responder.profile),
        "data": dataset.about(),
        "metrics": list(judge.names),
        "weights": _weights(first, profile.name),
        "seeds": list(seeds),
        "joints": {f"{method}-{seed}": provenance.sha256_of(folder / WEIGHTS)
                   for (method, seed), folder in folders.items()},
        "baselines": {m: models[m, 0].fingerprint for m in spec.baselines if m != "sd"},
    }  # fmt: skip
    config = json.loads(json.dumps(config))  # as it will be read back
    folder = Path(output_dir) / spec.name
    return Evaluation(spec, dataset, models, scorer, tuple(seeds), config, folder, batch_size)


def _dataset(task, output_dir: Path, data, count) -> tasks.Dataset:
    if data is not None:
        annotations, images = data
        return tasks.of_files(task, annotations, images, count)
    count = count or WORLD_EXAMPLES
    return tasks.of_world(task, output_dir / f"{task.name}-{count}", count)


def _measurable(names: Sequence[str], dataset: tasks.Dataset) -> tuple[str, ...]:
    """Attribute accuracy only where it is known what the pictures show."""
    known = tuple(n for n in names if n != "attribute_accuracy" or dataset.scenes)
    if not known:
        raise GillError("attribute accuracy needs the mini world's scenes; name another metric")
    return known


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
    spec: TableSpec, run: RunResult, started: float, profile_name: str = "mini", figures=(),
    command: str = "", config: dict | None = None, more: dict | None = None, **settings,
) -> dict:  # fmt: skip
    """What results/<name>.json holds: rows, verdicts, counts, provenance, figures.

    spec and config: of the `Evaluation`. started: `time.time()` when this start began. more: a
    metric's name -> (its heading, its intervals by (method, context), what computes a statistic
    of it), where it is no mean over examples. settings: shown as given.
    """
    more = more or {}
    frame = scores_frame(run.rows)
    judged = [claim for claim in claims.read_claims() if claim.table == spec.topic]
    labels = tables.MINI_METRICS if profile_name == "mini" else tables.METRICS
    return {
        "table": spec.name,
        "title": spec.title,
        "topic": spec.topic,
        "rows": tables.result_rows(
            frame,
            spec.topic,
            spec.all_contexts,
            labels | {name: heading for name, (heading, _, _) in more.items()},
            spec.labels,
            measured={name: ours for name, (_, ours, _) in more.items()},
        ),
        "verdicts": claims.verdict_rows(
            judged, frame, {name: compute for name, (_, _, compute) in more.items()}
        ),
        "spread": spread.rows(frame, spec.contexts),
        "verdicts_by_lm": spread.verdicts(judged, frame),
        "counts": {"scored": run.scored, "eligible": run.eligible, "skipped": dict(run.skipped)},
        "settings": settings,
        "provenance": {
            **provenance.collect(
                started,
                profile_name,
                command or f"gill-lite reproduce --tables {spec.number}",
                run.earlier_seconds,
            ),
            "inputs": config or {},
        },
        "figures": list(figures),
    }


def save(output_dir, run: RunResult, result: dict) -> Path:
    """Write the results file and, beside it, the score of every picture."""
    folder, name = Path(output_dir) / "results", result["table"]
    write_text(folder / f"{name}_scores.csv", scores_frame(run.rows).to_csv(index=False))
    return write_json(folder / f"{name}.json", result)
