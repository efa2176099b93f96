"""Deciding on the real votes: a linear classifier on the [IMG0] state behind a prompt (paper §3.3).

The official annotations say which of two pictures people preferred; the pictures themselves are
not needed. Where the joints bring a classifier of their own it is scored, too, on the same test
part; the released one was fitted to two thirds of the same prompts, whichever they were.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gill_lite import provenance
from gill_lite.answering.decision import CLASSES, load_decision
from gill_lite.datasets.partiprompts import read_partiprompts
from gill_lite.evaluation.drawers import joints_folders, load_models
from gill_lite.experiments.deciding import choices, outcome
from gill_lite.experiments.deciding.pairs import first_img_states
from gill_lite.experiments.deciding.questions import TABLE
from gill_lite.files import sha256, write_json, write_text
from gill_lite.model.backbones import fingerprint
from gill_lite.model.checkpoint import WEIGHTS
from gill_lite.report.claims import claim_row, read_claims

WAYS = {name: choices.METHODS[name] for name in ("gen", "ret", "coin", "linear")}
OWN = "the classifier that comes with the joints"
WHERE = "PartiPrompts"


@dataclass(frozen=True)
class Asked:
    """A prompt with a confident label; prompts of one text are in one part."""

    example_id: str
    text: str
    split: str  # its label: parts are alike in it

    @property
    def scene(self) -> str:
        """What is resampled: the text."""
        return self.text


def decide(
    output_dir, profile, alignment_tsv, seeds: Sequence[int] = (), joints: Sequence = (),
    device="cpu", dtype=None, backbones: dict | None = None, command: str = "",
) -> dict:  # fmt: skip
    """Fit and score the decision on the prompts of `alignment_tsv` on which people agree.

    Writes results/decide.json and a row for every prompt. seeds, joints, backbones: as
    `evaluate.prepare` takes them. Raises GillError where the votes are too few to learn from.
    """
    started, seeds = time.time(), tuple(seeds) or tuple(range(len(joints)))
    folders = joints_folders(profile, seeds, joints)
    prompts = read_partiprompts(alignment_tsv).examples
    asked = [Asked(str(row), p.text, p.label) for row, p in enumerate(prompts, 1)
             if p.label in CLASSES]  # fmt: skip
    models = load_models(profile, folders, (), device, dtype, backbones)
    frame = pd.concat(
        answers(asked, first_img_states(models["gill", seed].responder, asked), seed,
                load_decision(folders["gill", seed]))
        for seed in seeds
    )  # fmt: skip
    lost = {"no confident label": len(prompts) * len(seeds) - len(frame)}
    counts = {"scored": len(frame), "eligible": len(prompts) * len(seeds), "skipped": lost}
    made = provenance.collect(started, profile.name, command)
    inputs = {
        "data": {"sha256": sha256(alignment_tsv), "labels": Counter(q.split for q in asked)},
        "weights": fingerprint(models["gill", seeds[0]].responder.backbones),
        "joints": {f"gill-{s}": sha256(folders["gill", s] / WEIGHTS) for s in seeds},
    }
    result = {
        **{"table": TABLE.name, "title": TABLE.title, "topic": TABLE.topic, "counts": counts},
        **judged(frame, asked),
        "settings": {"seeds": list(seeds), "num_prompts": len(asked)},
        "provenance": {**made, "inputs": inputs},
        "figures": [],
    }
    folder = Path(output_dir) / "results"
    write_text(folder / f"{TABLE.name}_scores.csv", frame.to_csv(index=False))
    write_json(folder / f"{TABLE.name}.json", result)
    return result


def answers(asked: list[Asked], features: np.ndarray, seed: int, own=None) -> pd.DataFrame:
    """A row a prompt: its part, its label, and what each of WAYS answers. own: a LinearDecision."""
    of, labels = choices.split_by_scene(asked), [q.split for q in asked]
    parts = [of[q.example_id] for q in asked]
    model, _ = choices.fit_linear(features, labels, parts)
    known = [label for label, part in zip(labels, parts, strict=True) if part != "test"]
    return pd.DataFrame({
        "example": [q.example_id for q in asked], "method": "gill", "context": WHERE,
        "seed": seed, "part": parts, "label": labels,
        "gen": "gen", "ret": "ret", "coin": known.count("ret") / len(known),
        "linear": model.decide(features).answers,
        **({"own": own.decide(features).answers} if own else {}),
    })  # fmt: skip


def judged(frame: pd.DataFrame, asked: list[Asked]) -> dict[str, list[dict]]:
    """Macro F1 of every way to choose on the test part, and the verdict on the paper's claim."""
    test, texts = outcome.held_out(frame, asked)
    ways = WAYS | ({"own": OWN} if "own" in frame else {})
    rows = [
        outcome.row(label, WHERE, outcome.F1, choices.f1_interval(test, texts, way))
        for way, label in ways.items()
    ]
    lead = choices.f1_lead(test, texts, "linear", outcome.LEADS["constants"])
    claims = [claim for claim in read_claims() if claim.table == TABLE.name]
    return {"rows": rows, "verdicts": [claim_row(claim, lead) for claim in claims]}
