"""Retrieve or generate, in the mini world (paper §3.3): one prompt, two pictures, one choice.

Half of the prompts describe scenes that training has seen, half scenes it has not. Each is
answered twice: by the best picture of a gallery of seen scenes, and by a generated one. How many
of the prompt's six attributes a picture has is known for the first and read by probes for the
second. `voting` has raters judge the pairs, `choosing` learns from their labels, `reasons` asks
why it comes out as it does.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gill_lite import provenance
from gill_lite.answering.drawing import example_seed
from gill_lite.answering.gallery import DRAWN
from gill_lite.answering.respond import Responder, load_responder
from gill_lite.errors import GillError
from gill_lite.evaluation import metrics
from gill_lite.evaluation.cache import SampleCache, default_cache
from gill_lite.evaluation.drawers import GillDrawer
from gill_lite.evaluation.run import RunResult, WorkItem, run_resumable, work_items
from gill_lite.experiments.deciding import choices as choosing
from gill_lite.experiments.deciding import votes as voting
from gill_lite.files import write_json, write_text
from gill_lite.model.checkpoint import WEIGHTS, joints_folder
from gill_lite.profiles import get_profile
from gill_lite.report import claims
from gill_lite.world import language
from gill_lite.world.probes import load_probes
from gill_lite.world.scene import ATTRIBUTES, Scene, rng_for, sample_scene

NAME = "decide"  # of the results file
TITLE = "Deciding: retrieve a picture, or generate one?"
SPLITS = ("seen", "novel")
NUM_PROMPTS = 900  # as many as the paper has confident labels of, about
BATCH = 32  # pictures drawn together
LEADS = {"constants": ("gen", "ret"), "coin": ("coin",)}  # what the decision is held against
F1, ACCURACY = "macro F1 ↑", "attribute accuracy ↑"
KEPT = ["example", "method", "context", "seed", "part", "retrieved", "generated", "retrieved_id",
        "retrieved_score", *(f"right_{name}" for name in ATTRIBUTES), "votes", "label",
        "threshold", "linear"]  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A prompt that names all six attributes of a scene."""

    example_id: str
    text: str
    scene: Scene
    split: str  # "seen" or "novel"


def questions(count: int = NUM_PROMPTS) -> list[Question]:
    """`count` prompts, half of seen and half of novel scenes, the same in every run.

    Raises GillError for an odd count or one below 2.
    """
    if count < 2 or count % 2:
        raise GillError(f"the number of prompts must be even and at least 2, not {count}")
    made = []
    for split in SPLITS:
        for number in range(count // 2):
            rng = rng_for("decide", split, number)
            scene = sample_scene(rng, split)
            text = language.sentence(scene.as_dict(), rng)
            made.append(Question(f"{split}-{number}", text, scene, split))
    return made


def gallery_scenes() -> list[Scene]:
    """What the pictures of `Responder.gallery` show, in their order; all are seen scenes."""
    return [sample_scene(rng_for("gallery", number)) for number in range(DRAWN)]


def matches(asked: Scene, shown: Scene) -> int:
    """How many of the six attributes two scenes share."""
    return sum(a == b for a, b in zip(asked.labels(), shown.labels(), strict=True))


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
        responder = self.responders[items[0].seed]
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
            right = metrics.attribute_accuracy(self.probes(pictures), [q.scene for q in asked])
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
        "table": NAME,
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
    return run_resumable(
        items_of(asked, list(responders)), scorer, Path(output_dir) / NAME, config, BATCH,
        progress=progress, description=NAME,
    )  # fmt: skip


@torch.no_grad()
def first_img_states(responder: Responder, asked: list[Question], batch: int = 50) -> np.ndarray:
    """The LM's hidden state of the first [IMG] token behind each question, (N, D)."""
    parts = []
    for start in range(0, len(asked), batch):
        texts = [q.text for q in asked[start : start + batch]]
        states = responder.prompts.img_states(texts)  # (B, R, D)
        parts.append(states[:, 0].float().cpu().numpy())
    return np.concatenate(parts)


# ---- from pairs to a results file --------------------------------------------------------


def held_out(frame: pd.DataFrame, asked: list[Question]) -> tuple[pd.DataFrame, pd.Series]:
    """The rows of the test part, and the name of each row's scene."""
    test, scene = frame[frame.part == "test"], {q.example_id: str(q.scene) for q in asked}
    return test, test.example.map(scene)


def _row(method: str, context: str, metric: str, interval: metrics.Interval) -> dict:
    labels = {"method": method, "context": context, "metric": metric}
    return {**labels, **asdict(interval), "paper": None, "paper_pm": None}


def result_rows(frame: pd.DataFrame, asked: list[Question], real: list) -> list[dict]:
    """Macro F1 and attribute accuracy of each way to choose, in the form of tables.result_rows."""
    test, scenes = held_out(frame, asked)
    rows = [_row("people", "PartiPrompts", F1, choosing.people_interval(real))]
    rows += [_row("simulated raters", "all prompts", F1, choosing.raters_interval(test, scenes))]
    for method, label in choosing.METHODS.items():
        rows.append(_row(label, "all prompts", F1, choosing.f1_interval(test, scenes, method)))
        for context, where in (("all prompts", test.context.notna()), *(
            (f"{split} scenes", test.context == split) for split in SPLITS
        )):  # fmt: skip
            interval = choosing.quality_interval(test[where], scenes[where], method)
            rows.append(_row(label, context, ACCURACY, interval))
    return rows


def judged(frame: pd.DataFrame, asked: list[Question]) -> dict[str, list[dict]]:
    """The paper's claim, judged by macro F1 ("verdicts"), and our two "controls" of it.

    Macro F1 of a constant is low, so that even a coin is ahead of it: the controls ask whether
    the decision is ahead of the coin, and whether the answers are better for it.
    """
    test, scenes = held_out(frame, asked)
    best = "max(always generate, always retrieve)"
    lead = choosing.f1_lead(test, scenes, "linear", LEADS["constants"])
    judged = [claim for claim in claims.read_claims() if claim.table == NAME]
    told = claims.verdict_rows(judged, pd.DataFrame(), {"macro_f1": lambda _: lead})
    coin = _judgement(
        "control-coin", "The decision is better than a coin as biased as the labels",
        "macro F1: linear - coin > 0",
        choosing.f1_lead(test, scenes, "linear", LEADS["coin"]), "control",
    )  # fmt: skip
    answer = _judgement(
        "control-answer", "With the decision the answer's picture is better than with a constant",
        f"attribute accuracy: linear - {best} > 0",
        choosing.quality_lead(test, scenes, "linear", LEADS["constants"]), "control",
    )  # fmt: skip
    return {"verdicts": told, "controls": [coin, answer]}


def differences(frame: pd.DataFrame, asked: list[Question], method: str = "linear") -> list[dict]:
    """Both measures of `method` minus those of every other way to choose, paired."""
    test, scenes = held_out(frame, asked)
    return [
        {"against": choosing.METHODS[other], "metric": metric,
         **asdict(lead(test, scenes, method, (other,)))}
        for other in choosing.METHODS if other != method
        for metric, lead in ((F1, choosing.f1_lead), (ACCURACY, choosing.quality_lead))
    ]  # fmt: skip


def _judgement(name: str, statement: str, statistic: str, interval, source: str) -> dict:
    """A row in the form of claims.verdict_rows."""
    kept = asdict(interval)
    return {"id": name, "statement": statement, "verdict": claims.verdict(interval),
            "difference": kept.pop("mean"), **kept, "source": source,
            "statistic": statistic}  # fmt: skip


def results(
    frame, asked, real, run: RunResult, started: float, raters, fitted, why: dict, command="",
    **settings,
) -> dict:  # fmt: skip
    """What results/decide.json holds. why: see `reasons`. settings: shown as given."""
    simulated = [voting.voted(votes.split()) for votes in frame.votes]
    return {
        "table": NAME,
        "title": TITLE,
        "rows": result_rows(frame, asked, real),
        **judged(frame, asked),
        "differences": differences(frame, asked),
        "counts": {"scored": run.scored, "eligible": run.eligible, "skipped": dict(run.skipped)},
        "settings": settings,
        "raters": raters._asdict(),
        "fitted": fitted,
        "agreement": {"people": voting.agreement(real), "simulated": voting.agreement(simulated)},
        "why": why,
        "provenance": provenance.collect(started, "mini", command, run.earlier_seconds),
        "figures": [],
    }


def save(output_dir, frame: pd.DataFrame, result: dict) -> Path:
    """Write the results file and, beside it, a row for every pair."""
    folder = Path(output_dir) / "results"
    write_text(folder / f"{NAME}_scores.csv", frame[KEPT].to_csv(index=False))
    return write_json(folder / f"{NAME}.json", result)
