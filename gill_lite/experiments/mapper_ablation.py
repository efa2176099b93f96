"""Ablations: the two runs of the mapper ablation as one table, costs, and paired differences.

The paper compares mappers by FID on single captions (CC3M) and CLIP similarity on VIST. Here,
too, each mapper draws single captions and full stories: two evaluations, one results file.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import pandas as pd
import torch
from tqdm import tqdm

from gill_lite.evaluation.evaluate import Evaluation, prepare, results
from gill_lite.evaluation.run import RunResult
from gill_lite.evaluation.tables import TABLES, Table
from gill_lite.experiments import frechet
from gill_lite.model.checkpoint import joints_folder, read_joints
from gill_lite.report.intervals import Interval
from gill_lite.report.numbers import difference

TIMED_STEPS = 10  # training steps of each mapper


@dataclass
class Ablation:
    """The mapper ablation, ready to be computed: stories in full, and single captions."""

    stories: Evaluation
    captions: Evaluation

    @property
    def parts(self) -> tuple[Evaluation, Evaluation]:
        """Both evaluations."""
        return self.stories, self.captions

    @property
    def table(self) -> Table:
        """The stories' table with the contexts of both, so that it holds all rows."""
        return both_contexts(*(part.table for part in self.parts))

    def run(self, progress: bool | None = None) -> RunResult:
        """Score every item of both, one after the other; each goes on where it was killed."""
        return joined([part.run(progress=progress) for part in self.parts])

    def distances(self, progress: bool | None = None) -> frechet.Frechet:
        """Fréchet distances on the single captions; pictures come from the cache where it has
        them, so this is for after `run`."""
        return frechet.Frechet(*frechet.cell_features(self.captions, progress))

    def results(self, run: RunResult, distances: frechet.Frechet, started: float) -> dict:
        """What results/mappers.json holds, without the costs; arguments as `evaluate.results`."""
        stories, captions = (part.config for part in self.parts)
        result = results(self.table, stories, run, started, measured={frechet.METRIC: distances})
        result["settings"]["num_captions"] = captions["count"] or captions["data"]["taken"]
        result["provenance"]["inputs"] = {"stories": stories, "captions": captions}
        return result


def both_contexts(*tables: Table) -> Table:
    """The first of the tables with the contexts of all."""
    return replace(
        tables[0],
        contexts=tuple(c for table in tables for c in table.contexts),
        text_contexts=tuple(c for table in tables for c in table.text_contexts),
    )


def prepare_both(
    output_dir, profile="mini", seeds: Sequence[int] | None = None, num_stories: int | None = None,
    num_captions: int | None = None, run_seed: int = 0, **options,
) -> Ablation:  # fmt: skip
    """Read the data of both evaluations and load the models once.

    options: of `evaluate.prepare`, such as cache_dir and joints_root. Raises GillError for
    whatever is missing.
    """
    chosen = {"profile": profile, "seeds": seeds, "run_seed": run_seed, **options}
    stories, captions = TABLES["mappers"].parts
    first = prepare(stories, output_dir, num_examples=num_stories, **chosen)
    chosen["models"] = first.models
    return Ablation(first, prepare(captions, output_dir, num_examples=num_captions, **chosen))


def joined(runs: Iterable[RunResult]) -> RunResult:
    """Several runs as one: their rows in order, what they count added up."""
    runs = list(runs)
    rows = [row for run in runs for row in run.rows]
    skipped = sum((run.skipped for run in runs), Counter())
    earlier = sum(run.earlier_seconds for run in runs)
    return RunResult(rows, sum(run.eligible for run in runs), skipped, earlier)


# ---- what a mapper costs ---------------------------------------------------------------------


def costs(methods: Sequence[str], backbones, labels: dict[str, str], seed: int = 0,
          joints_root=None, rounds: int = TIMED_STEPS) -> list[dict]:  # fmt: skip
    """A JSON row a method: what its joints hold and how they were trained, and seconds of a step.

    Sizes and recipe are read from the shipped joints. They do not record how long their training
    took, and trainings on a shared machine would not compare: so `rounds` steps of each mapper
    are timed here, in turn. training_seconds is that, times the steps of the recipe.
    """
    rows = []
    for method in methods:
        saved = read_joints(joints_folder(method, seed, joints_root))
        told, sizes = saved.provenance, {n: v.numel() for n, v in saved.joints.items()}
        of_mapper = sum(size for name, size in sizes.items() if name.startswith("mapper."))
        rows.append({
            "method": labels[method], "mapper": saved.config.mapper,
            "mapper_parameters": of_mapper, "learned_parameters": sum(sizes.values()),
            "learning_rate": told["settings"]["learning_rate"], "steps": told["steps"],
            "batch_size": told["settings"]["batch_size"],
        })  # fmt: skip
    seconds = step_seconds([row["mapper"] for row in rows], backbones, rounds)
    for row in rows:
        row["step_seconds"] = round(seconds[row["mapper"]], 4)
        row["training_seconds"] = round(seconds[row["mapper"]] * row["steps"])
    return rows


def step_seconds(mappers: Sequence[str], backbones, rounds: int = TIMED_STEPS) -> dict[str, float]:
    """Mean seconds of a training step, by mapper, on the captions of the mini world.

    The mappers take turns, so that a busy moment of the machine hits all of them; the first
    step of each is not counted. Pictures are already embedded, as in the real training.
    """
    from gill_lite.model.gill import build_gill
    from gill_lite.training.processes import split_batch
    from gill_lite.training.step import Stepper

    profile = backbones.profile
    gills = {mapper: build_gill(profile, backbones, mapper) for mapper in mappers}
    part, spent = split_batch(profile), dict.fromkeys(mappers, 0.0)
    steppers = {m: Stepper(profile, gill, part) for m, gill in gills.items()}
    for step in tqdm(range(1 + rounds), desc="time training steps"):
        for mapper, stepper in steppers.items():
            started = time.perf_counter()
            stepper(step, [_batch(gills[mapper], backbones, step)])  # gives floats: GPU waited for
            spent[mapper] += (time.perf_counter() - started) * (step > 0)
    return {mapper: seconds / rounds for mapper, seconds in spent.items()}


def _batch(gill, backbones, step: int):
    """The captions of one training step; the text encoder's targets are a part of its cost."""
    from gill_lite.training.data import Examples
    from gill_lite.training.step import joins
    from gill_lite.training.train import make_batch
    from gill_lite.world.pictures import training_caption

    profile, size = backbones.profile, backbones.profile.batch_size
    captions = [training_caption(step * size + i, 0) for i in range(size)]
    images = torch.randn(size, gill.visual_fc.in_features)  # (B, Dv)
    examples = Examples(list(range(size)), images, captions)
    joined = joins(0, step, profile.join_probability)
    return make_batch(gill, backbones, examples, profile.max_caption_tokens, joined)


# ---- differences to one method ---------------------------------------------------------------


def differences(
    frame: pd.DataFrame, table: Table, baseline: str = "gill", metric: str = "clip_similarity"
) -> list[dict]:
    """Each method minus `baseline`, story by story in the same context: a JSON row each.

    Keys: method, context (labels); difference, low, high, n, undefined, seeds.
    """
    there, rows = set(zip(frame["method"], frame["context"], strict=True)), []
    for method in table.learned:
        for context in table.contexts:
            cells = [(1, method, context.name), (-1, baseline, context.name)]
            if method == baseline or not {cell[1:] for cell in cells} <= there:
                continue
            interval = asdict(difference(frame, metric, cells))
            labels = {"method": table.labels[method], "context": context.label}
            rows.append({**labels, "difference": interval.pop("mean"), **interval})
    return rows


def differences_frame(rows: list[dict]) -> pd.DataFrame:
    """`differences` as text: a row a method, a column a context."""
    shown = [(row["method"], row["context"], str(Interval.of(row))) for row in rows]
    frame = pd.DataFrame(shown, columns=["method", "context", "text"])
    order = frame["method"].unique(), frame["context"].unique()
    return frame.pivot(index="method", columns="context", values="text").loc[order]
