"""What stands in the [IMG] states after a text and after a picture of the same scene? (mini world)

A linear probe learns to read an attribute from the states that the mapper gets, behind prompts of
one kind, and then reads those behind the other. What it reads there stands in the same direction;
what only a probe of that kind's own reads is in the states, too, but elsewhere.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from gill_lite.answering.respond import Responder
from gill_lite.world import language
from gill_lite.world.render import render
from gill_lite.world.scene import ATTRIBUTES, Scene, rng_for, sample_scene

KINDS = ("text", "picture")
TRAIN, TEST = 600, 300
BATCH = 50


class Asked(NamedTuple):
    """Scenes, and a prompt of each kind for each of them."""

    scenes: list[Scene]
    prompts: dict[str, list]  # kind -> N prompts


def ask(count: int, key: str) -> Asked:
    """`count` scenes that training has seen, told in one sentence and shown in one picture."""
    rngs = [rng_for("img states", key, number) for number in range(count)]
    scenes = [sample_scene(rng) for rng in rngs]
    both = list(zip(scenes, rngs, strict=True))
    texts = [[language.sentence(scene.as_dict(), rng)] for scene, rng in both]
    return Asked(scenes, {"text": texts, "picture": [[render(scene, rng)] for scene, rng in both]})


@torch.no_grad()
def states(responder: Responder, prompts: Sequence) -> np.ndarray:
    """The [IMG] states forced behind each prompt, side by side, (N, R * D)."""
    parts = [responder.prompts.img_states(prompts[i : i + BATCH])
             for i in range(0, len(prompts), BATCH)]  # fmt: skip
    return torch.cat(parts).flatten(1).float().cpu().numpy()


def probed(responder: Responder, train: int = TRAIN, test: int = TEST) -> pd.DataFrame:
    """Share of `test` scenes whose attribute is read: a row an attribute, and their mean.

    Columns: (the kind of prompts that the probe learned from, the kind that it reads). The
    probes see `train` other scenes.
    """
    learned, held = ask(train, "train"), ask(test, "test")
    seen, new = ({kind: states(responder, asked.prompts[kind]) for kind in KINDS}
                 for asked in (learned, held))  # fmt: skip
    rows = {}
    for attribute in ATTRIBUTES:
        old, truth = ([getattr(scene, attribute) for scene in asked.scenes]
                      for asked in (learned, held))  # fmt: skip
        probes = {kind: _probe(seen[kind], old) for kind in KINDS}
        rows[attribute] = {(a, b): float(probes[a].score(new[b], truth))
                           for a in KINDS for b in KINDS}  # fmt: skip
    frame = pd.DataFrame(rows).T
    frame.columns = pd.MultiIndex.from_tuples(frame.columns, names=["learned from", "reads"])
    frame.loc["mean"] = frame.mean()
    return frame


def _probe(features: np.ndarray, truth: Sequence[str]):
    """A linear classifier, fitted."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), RidgeClassifier(alpha=100.0)).fit(features, truth)
