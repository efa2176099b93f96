"""A table of the family: every system on the same examples, scored, kept, with what it cost.

`compute` is resumable as every table is. The task's file says what an example is and how a system
is scored on it: `score(member, examples, all examples of the split) -> rows`.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gill_lite import provenance
from gill_lite.evaluation import evaluate
from gill_lite.evaluation.run import RunResult, WorkItem, run_resumable, work_items
from gill_lite.family import SYSTEMS, System
from gill_lite.family.system import (
    CONFIG,
    MANIFEST,
    WEIGHTS,
    Member,
    folder_of,
    load,
    numbers_learned,
)
from gill_lite.files import read_json, shipped
from gill_lite.model.backbones import Backbones, fingerprint, load_backbones
from gill_lite.model.checkpoint import WEIGHTS as JOINTS
from gill_lite.model.checkpoint import joints_folder, read_joints
from gill_lite.pretraining import denoiser, glide
from gill_lite.profiles import MINI

# What draws and was trained with the mini world itself: the stage of its manifest, and a batch.
WORLDS_OWN = {"sd": ("denoiser", denoiser.BATCH), "glide": ("glide", glide.BATCH)}


class Family:
    """The trained systems of a task by name and seed, on one set of backbones."""

    def __init__(
        self, systems: Sequence[System], seeds: Sequence[int] | None = None, root=None,
        backbones: Backbones | None = None,
    ):  # fmt: skip
        self.root = root
        self.backbones = backbones or load_backbones(MINI)
        self.cells = [(s.name, seed) for s in systems for seed in seeds_of(s, seeds, root)]
        self.members: dict[tuple[str, int], Member] = {}

    def __getitem__(self, cell: tuple[str, int]) -> Member:
        """One of the systems; loaded at first use."""
        if cell not in self.members:
            self.members[cell] = load(*cell, self.root, self.backbones)
        return self.members[cell]

    def weights(self) -> dict[str, str | None]:
        """The hash of each system's weights; None: a backbone, of which the manifest tells."""
        return {
            f"{n}-{s}": provenance.sha256_of(weights_of(n, s, self.root)) for n, s in self.cells
        }

    def cost(self, cell: tuple[str, int]) -> dict:
        """What one of the systems learned: numbers, and steps, pairs, minutes where known."""
        name, seed = cell
        about: dict[str, Any] = {"learned": numbers_learned(self[cell])}
        if SYSTEMS[name].trained_here:
            made = read_json(folder_of(name, seed, self.root) / CONFIG, "configuration")
            about |= {"pairs": made["pairs"], "minutes": round(made["seconds"] / 60, 1)}
        elif method := SYSTEMS[name].joints:
            made = read_joints(joints_folder(method, seed)).provenance
            about["pairs"] = made["steps"] * made["settings"]["batch_size"]
        elif name in WORLDS_OWN:
            stage, batch = WORLDS_OWN[name]
            made = read_json(shipped("mini") / MANIFEST, "manifest")["stages"][stage]
            about |= {"pairs": made["steps"] * batch, "minutes": round(made["seconds"] / 60, 1)}
        return about


def seeds_of(system: System, asked: Sequence[int] | None, root=None) -> tuple[int, ...]:
    """The seeds of a system whose weights are there, of those asked for; at least its first."""
    wanted = [s for s in system.seeds if asked is None or s in asked]
    there = [s for s in wanted if weights_of(system.name, s, root).is_file()]
    return tuple(there) or system.seeds[:1]


def weights_of(name: str, seed: int, root: Path | None = None) -> Path:
    """The file of a system's weights; joints lie in their own folder."""
    if method := SYSTEMS[name].joints:
        return joints_folder(method, seed) / JOINTS
    return folder_of(name, seed, root) / WEIGHTS


def items_of(family: Family, examples: dict[str, list]) -> list[WorkItem]:
    """Every system on every example; the context is the example's split."""
    return [
        item
        for name, seed in family.cells
        for split, chosen in examples.items()
        for item in work_items([e.example_id for e in chosen], [(name, split, seed)])
    ]


def sha256_of_names(known: dict) -> str:
    """A hash of the examples: each is drawn from its name."""
    return hashlib.sha256("\n".join(known).encode()).hexdigest()


def compute(
    table, family: Family, examples: dict[str, list], score: Callable, output_dir,
    progress: bool | None = None,
) -> tuple[dict, RunResult]:  # fmt: skip
    """Score every system on every example, by split; the run's configuration and its rows."""
    known = {example.example_id: example for chosen in examples.values() for example in chosen}

    def scored(items: list[WorkItem]) -> list[dict]:
        method, split, seed = items[0].cell
        chosen = [known[item.example_id] for item in items]
        return score(family[method, seed], chosen, examples[split])

    config = {
        "table": table.name,
        "profile": {"name": MINI.name},
        "data": {"taken": max(map(len, examples.values())), "sha256": sha256_of_names(known)},
        "count": None,
        "run_seed": 0,
        "seeds": sorted({seed for _, seed in family.cells}),
        "weights": fingerprint(family.backbones),
        "manifest": provenance.sha256_of(shipped("mini") / MANIFEST),
        "joints": family.weights(),
    }
    items, folder = items_of(family, examples), Path(output_dir) / table.name
    return config, run_resumable(
        items, scored, folder, config, progress=progress, description=table.name
    )


def results(
    table, family: Family, config: dict, run: RunResult, started: float,
    facts: Callable[[Member], dict] = lambda member: {},
) -> dict:  # fmt: skip
    """What results/<name>.json holds: as every table's, and what each system cost.

    facts: what else is measured once of a system, beside the examples. "learned" names those that
    were trained with a seed, on which a verdict depends.
    """
    labels = {name: SYSTEMS[name].title for name, _ in family.cells}
    learned = {name for name in labels if SYSTEMS[name].trained_here or SYSTEMS[name].joints}
    result = evaluate.results(replace(table, labels=labels), config, run, started, learned=learned)
    costs = {f"{name}-{seed}": family.cost((name, seed)) | facts(family[name, seed])
             for name, seed in family.cells}  # fmt: skip
    return {**result, "systems": costs, "learned": sorted(learned)}
