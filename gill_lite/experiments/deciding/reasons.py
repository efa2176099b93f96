"""Why the choice between retrieving and generating comes out as it does: three looks at it.

None of them changes the raters, the gallery or the verdict: they are taken when those are fixed.
"""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch

from gill_lite.answering.decision import CLASSES, LinearDecision
from gill_lite.answering.index import ImageIndex
from gill_lite.experiments.deciding import choices, outcome, votes
from gill_lite.experiments.deciding.questions import matches
from gill_lite.world.render import render
from gill_lite.world.scene import all_scenes, common_scene, rng_for

GALLERIES = (100, 400, 1600, "every seen scene")
SPLIT_SEEDS = range(1, 9)
FACTS = {
    "the scene is novel": lambda f: f.context == "novel",
    "the gallery has this very scene": lambda f: f.retrieved == 6,
    "the generated picture is right": lambda f: f.generated == 6,
    "the retrieved picture is better": lambda f: f.retrieved > f.generated,
}


def told(frame: pd.DataFrame, features: dict[int, np.ndarray]) -> pd.DataFrame:
    """What can be told about a prompt: area under the ROC curve on the test part, mean over seeds.

    From the [IMG0] state by a linear classifier of its own (`LinearDecision` at its default
    regularisation), and from the retrieval score alone, whichever way round tells more outside
    the test part. 0.5 is nothing, 1 everything.
    """
    from sklearn.metrics import roc_auc_score

    rows = []
    for fact, is_so in FACTS.items():
        values = []
        for seed, part in frame.groupby("seed"):
            truth, held = is_so(part).to_numpy(), (part.part == "test").to_numpy()
            names = np.where(truth, "ret", "gen")  # the classifier's two names, here yes and no
            model = LinearDecision.fit(features[seed][~held], names[~held])
            state = model.decide(features[seed]).probabilities[:, 1]
            score = part.retrieved_score.to_numpy()
            score = score if roc_auc_score(truth[~held], score[~held]) >= 0.5 else -score
            areas = [roc_auc_score(truth[held], tells[held]) for tells in (state, score)]
            values.append((truth.mean(), *areas))
        share, state, score = np.mean(values, axis=0)
        rows.append({"fact": fact, "share": share, "state": state, "score": score})
    return pd.DataFrame(rows)


def other_splits(
    frame: pd.DataFrame, asked, features, seeds: Sequence[int] = SPLIT_SEEDS
) -> list[dict]:
    """The decision's lead in macro F1 over constants and coin, where scenes are split otherwise."""
    rows = []
    for seed in seeds:
        parts = choices.split_by_scene(asked, seed)
        chosen, _ = choices.choose(frame, parts, features)
        test, scenes = outcome.held_out(chosen, asked)
        rows.append({
            "split": seed,
            **{f"over_{name}": asdict(choices.f1_lead(test, scenes, "linear", others))
               for name, others in outcome.LEADS.items()},
        })  # fmt: skip
    return rows


def gallery_of(size) -> tuple[list, list]:
    """Scenes and pictures of a gallery as the responder's is made, of another size; or one
    picture of every seen scene."""
    if not isinstance(size, int):
        scenes = all_scenes("seen")
        return scenes, [render(s, rng_for("whole gallery", i)) for i, s in enumerate(scenes)]
    rngs = [rng_for("gallery", number) for number in range(size)]
    scenes = [common_scene(rng) for rng in rngs]
    return scenes, [render(s, rng) for s, rng in zip(scenes, rngs, strict=True)]


@torch.no_grad()
def retrieved_from(frame, responders, asked, scenes, pictures) -> pd.DataFrame:
    """The frame of pairs, the retrieved picture taken from another gallery; generated ones stay."""
    pieces = []
    for seed, rows in frame.groupby("seed", sort=True):
        responder = responders[seed]
        blocks = [pictures[i : i + 200] for i in range(0, len(pictures), 200)]
        pixels = map(responder.prompts.pixel_values, blocks)
        embedded = [responder.gill.image_features(block) for block in pixels]
        index = ImageIndex.build(torch.cat(embedded), range(len(pictures)))
        found, scores = [], []
        for start in range(0, len(asked), 50):
            hidden = responder.prompts.img_states([q.text for q in asked[start : start + 50]])
            hits = index.search(responder.gill.retrieval_embedding(hidden), k=1)
            found += [int(i) for i in hits.indices[:, 0]]
            scores += [float(s) for s in hits.scores[:, 0]]
        right = [matches(q.scene, scenes[i]) for q, i in zip(asked, found, strict=True)]
        pieces.append(rows.assign(retrieved=right, retrieved_score=scores, retrieved_id=found))
    return pd.concat(pieces)


def other_galleries(frame, responders, asked, features, raters, sizes=GALLERIES) -> list[dict]:
    """Macro F1 of decision, threshold, coin and oracle where the gallery has another size.

    The raters stay as they were fitted; their votes are cast anew on the new pairs.
    """
    noise, tastes = votes.noise_of(frame), votes.tastes_of(frame)
    parts, rows = choices.split_by_scene(asked), []
    for size in sizes:
        pairs = retrieved_from(frame, responders, asked, *gallery_of(size))
        cast = raters.votes(pairs.generated - pairs.retrieved, noise, tastes)
        chosen, _ = choices.choose(votes.with_votes(pairs, cast), parts, features)
        test, scenes = outcome.held_out(chosen, asked)
        labels = test.label[test.label.isin(CLASSES)]
        rows.append({
            "gallery": str(size),
            "better retrieved, share": float((test.retrieved > test.generated).mean()),
            "labelled ret, share": float((labels == "ret").mean()),
            **{m: choices.f1_interval(test, scenes, m).mean for m in choices.METHODS},
        })  # fmt: skip
    return rows
