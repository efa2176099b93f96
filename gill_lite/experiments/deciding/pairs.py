"""Both answers to every prompt, a picture of the gallery and a generated one, and their scores.

How many of the prompt's six attributes a picture has is known for the first and read by probes for
the second.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gill_lite import provenance
from gill_lite.answering.drawing import example_seed
from gill_lite.answering.gallery import DRAWN
from gill_lite.answering.respond import Responder, load_responder
from gill_lite.errors import GillError
from gill_lite.evaluation.cache import SampleCache, default_cache
from gill_lite.evaluation.drawers import GillDrawer
from gill_lite.evaluation.metrics import attribute_accuracy
from gill_lite.evaluation.run import RunResult, WorkItem, run_resumable, work_items
from gill_lite.experiments.deciding.questions import (
    SPLITS,
    TABLE,
    Question,
    gallery_scenes,
    matches,
)
from gill_lite.model.checkpoint import WEIGHTS, joints_folder
from gill_lite.profiles import get_profile
from gill_lite.world.probes import load_probes
from gill_lite.world.scene import ATTRIBUTES


def load_responders(
    seeds: Sequence[int] = (0, 1, 2), profile: str = "mini", joints_root=None
) -> dict[int, Responder]:
    """The mini world's GILL with the joints of each seed, on one set of backbones.

    joints_root: where gill-<seed> lie, by default the shipped ones. Raises GillError for another
    profile: nobody has voted on its pictures.
    """
    if get_profile(profile).name != "mini":
        raise GillError(f"deciding is computed in the mini world only, not for '{profile}'")
    responders: dict[int, Responder] = {}
    for seed in seeds:
        shared = next(iter(responders.values())).backbones if responders else None
        joints = joints_folder("gill", seed, joints_root) if joints_root else None
        responders[seed] = load_responder(seed=seed, joints=joints, backbones=shared)
    return responders


class PairScorer:
    """Answers questions with both pictures and counts what is right in each."""

    def __init__(
        self, responders: dict[int, Responder], asked: list[Question], run_seed: int = 0,
        cache: SampleCache | None = None,
    ):  # fmt: skip
        self.responders, self.run_seed, self.cache = responders, run_seed, cache
        self.drawers = {seed: GillDrawer(responder) for seed, responder in responders.items()}
        self.asked = {question.example_id: question for question in asked}
        self.scenes, self.probes = gallery_scenes(), load_probes()

    @torch.no_grad()
    def answer(self, items: list[WorkItem]):
        """Hits in the gallery and pictures (B, 3, H, W) for items of one seed.

        A picture's noise depends on the run's seed and the example alone.
        """
        responder: Any = self.responders[items[0].seed]  # with a gallery
        hidden = responder.prompts.img_states([self.asked[item.example_id].text for item in items])
        hits = responder.gallery.index.search(responder.gill.retrieval_embedding(hidden), k=1)
        seeds = [example_seed(self.run_seed, item.example_id) for item in items]
        drawer, conditions = self.drawers[items[0].seed], responder.gill.prompt_embeds(hidden)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return hits, drawer.pictures(conditions, generators, self.cache)

    def score(self, items: list[WorkItem], hits, pictures) -> list[dict]:
        """A row an item: matching attributes of both pictures, out of six, and which."""
        asked = [self.asked[item.example_id] for item in items]
        with torch.no_grad():
            right = attribute_accuracy(self.probes(pictures), [q.scene for q in asked])
        rows = []
        for place, question in enumerate(asked):
            found = int(hits.indices[place, 0])
            own = {f"right_{n}": int(v[place]) for n, v in right.per_attribute.items()}
            rows.append({
                "retrieved": matches(question.scene, self.scenes[found]),
                "generated": sum(own.values()),
                "retrieved_id": found,
                "retrieved_score": round(float(hits.scores[place, 0]), 6),
                **own,
            })  # fmt: skip
        return rows

    def __call__(self, items: list[WorkItem]) -> list[dict]:
        """Scores of the items, which share a seed."""
        return self.score(items, *self.answer(items))


def items_of(asked: list[Question], seeds: Sequence[int]) -> list[WorkItem]:
    """Every question with the joints of every seed; the context is the question's split."""
    return [
        item
        for seed in seeds
        for split in SPLITS
        for item in work_items(
            [q.example_id for q in asked if q.split == split], [("gill", split, seed)]
        )
    ]


def compute(
    responders: dict[int, Responder], asked: list[Question], output_dir, run_seed: int = 0,
    progress: bool | None = None, joints_root=None, cache_dir=None,
) -> RunResult:  # fmt: skip
    """Answer and score every question with every seed of the joints; resumable.

    cache_dir: where pictures are kept for all tables (`runs/cache`); False keeps none.
    """
    profile = next(iter(responders.values())).profile
    manifest = provenance.repository_root() / "data" / profile.name / "manifest.json"
    config = {
        "table": TABLE.name,
        "run_seed": run_seed,
        "attributes": list(ATTRIBUTES),
        "gallery": DRAWN,
        "weights": provenance.sha256_of(manifest),
        "joints": {
            str(seed): provenance.sha256_of(folder / WEIGHTS)
            for seed in responders
            for folder in [joints_folder("gill", seed, joints_root)]
        },
    }
    cache = None if cache_dir is False else SampleCache(cache_dir or default_cache())
    scorer = PairScorer(responders, asked, run_seed, cache)
    items, folder = items_of(asked, list(responders)), Path(output_dir) / TABLE.name
    return run_resumable(items, scorer, folder, config, progress=progress, description=TABLE.name)


@torch.no_grad()
def first_img_states(responder: Responder, asked: list[Question], batch: int = 50) -> np.ndarray:
    """The LM's hidden state of the first [IMG] token behind each question, (N, D)."""
    parts = []
    for start in range(0, len(asked), batch):
        texts = [q.text for q in asked[start : start + batch]]
        states = responder.prompts.img_states(texts)  # (B, R, D)
        parts.append(states[:, 0].float().cpu().numpy())
    return np.concatenate(parts)
