"""Learning to choose between a retrieved and a generated picture, and what the choice is worth.

Input is the frame of pairs of `pairs.compute` with the raters' labels (`votes.with_votes`).
A prompt's scene is in one part only, train, validation or test, and the intervals resample
scenes, since prompts of one scene are alike (112 novel scenes make 450 prompts), and the seeds of
the joints.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from gill_lite.answering.decision import CLASSES, DECISION, LinearDecision
from gill_lite.errors import GillError
from gill_lite.experiments.deciding.votes import macro_f1
from gill_lite.model.checkpoint import joints_folder
from gill_lite.report.intervals import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    Part,
    resample,
    resampled_interval,
    story_weights,
    within,
)

PARTS = ("train", "validation", "test")
FOLDS = {"test": (0, 1), "validation": (2,), "train": (3, 4, 5)}  # a third for the test, as there
REGULARISATIONS = tuple(10.0**p for p in range(-4, 3))
METHODS = {
    "gen": "always generate",
    "ret": "always retrieve",
    "coin": "a coin, as biased as the labels",
    "threshold": "threshold on the retrieval score",
    "linear": "linear decision on [IMG0]",
    "perfect": "the better picture (oracle)",
}


# ---- choosing ----------------------------------------------------------------------------


def split_by_scene(asked, seed: int = 0) -> dict[str, str]:
    """Example id -> "train" (a half), "validation" (a sixth) or "test" (a third).

    Seen and novel scenes are in each part alike; all prompts of a scene are in the same part.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(n_splits=6, shuffle=True, random_state=seed)
    split, scenes = [q.split for q in asked], [str(q.scene) for q in asked]
    part_of = {fold: part for part, members in FOLDS.items() for fold in members}
    parts = {}
    for fold, (_, held) in enumerate(folds.split(np.zeros(len(asked)), split, scenes)):
        parts |= {asked[i].example_id: part_of[fold] for i in held}
    return parts


def fit_linear(features, labels, parts) -> tuple[LinearDecision, float]:
    """The linear classifier on confidently labelled prompts, and its regularisation.

    features (N, D); labels and parts: N each. The regularisation is the best of
    REGULARISATIONS on the validation part; with it the classifier is fitted to train and
    validation together. The test part is not looked at.
    """
    features, labels, parts = (np.asarray(x) for x in (features, labels, parts))
    train, validation = (np.isin(labels, CLASSES) & (parts == part) for part in PARTS[:2])
    if not validation.any():
        raise GillError("no prompt of the validation part has a confident label; ask for more")
    scores = []
    for strength in REGULARISATIONS:
        model = LinearDecision.fit(features[train], labels[train], strength)
        answers = model.decide(features[validation]).answers
        scores.append(macro_f1(labels[validation], answers))
    best = REGULARISATIONS[int(np.argmax(scores))]
    both = train | validation
    return LinearDecision.fit(features[both], labels[both], best), best


def fit_threshold(scores, labels, parts) -> float:
    """The retrieval score from which on to retrieve, best by macro F1 on train and validation.

    scores (N,): cosine of query and retrieved picture.
    """
    scores, labels, parts = (np.asarray(x) for x in (scores, labels, parts))
    known = np.isin(labels, CLASSES) & (parts != "test")
    candidates = np.quantile(scores[known], np.linspace(0, 1, 101))
    values = [
        macro_f1(labels[known], np.where(scores[known] >= t, "ret", "gen")) for t in candidates
    ]
    return float(candidates[int(np.argmax(values))])


def choose(frame: pd.DataFrame, parts: dict[str, str], features: dict[int, np.ndarray]):
    """The frame with `part` and a column of answers for each of METHODS; and what was fitted.

    frame: one row a (question, seed), in the order of the questions within a seed. features:
    by seed, (questions, D).
    """
    frame = frame.assign(part=frame.example.map(parts))
    fitted, pieces = [], []
    for seed, rows in frame.groupby("seed", sort=True):
        model, strength = fit_linear(features[seed], rows.label, rows.part)
        threshold = fit_threshold(rows.retrieved_score, rows.label, rows.part)
        pieces.append(rows.assign(
            threshold=np.where(rows.retrieved_score >= threshold, "ret", "gen"),
            linear=model.decide(features[seed]).answers,
        ))  # fmt: skip
        fitted.append({"seed": int(seed), "regularisation": strength, "threshold": threshold})
    return with_references(pd.concat(pieces)), fitted


def save_decisions(frame: pd.DataFrame, features: dict[int, np.ndarray], folder: Path) -> None:
    """Write each seed's classifier beside where its joints would lie: gill-<seed> in `folder`.

    frame, features: as `choose` gives and takes them. `load_responder` reads such a file.
    """
    for seed, rows in frame.groupby("seed", sort=True):
        model, _ = fit_linear(features[seed], rows.label, rows.part)
        model.save(joints_folder("gill", seed, folder) / DECISION)


def with_references(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the answers that need no fitting: constants, coin and oracle.

    The coin's column holds its chance of "ret": their share among the confident labels of train
    and validation. The oracle generates where both pictures are equally right.
    """
    known = frame[frame.label.isin(CLASSES) & (frame.part != "test")]
    share = (known.label == "ret").groupby(known.seed).mean()
    better = np.where(frame.retrieved > frame.generated, "ret", "gen")
    return frame.assign(gen="gen", ret="ret", coin=frame.seed.map(share), perfect=better)


# ---- what the choice is worth ------------------------------------------------------------


def chance_of_ret(answers) -> np.ndarray:
    """Answers as the chance that they are "ret", (N,): 0, 1, or as given; NaN for `same`."""
    answers = pd.Series(answers)
    if pd.api.types.is_numeric_dtype(answers):
        return answers.to_numpy(dtype=float)
    return answers.map({"gen": 0.0, "ret": 1.0}).to_numpy(dtype=float)


def scene_interval(values, scenes: Sequence[str], statistic: Callable, seeds=None) -> Interval:
    """A statistic of totals with a bootstrap interval over scenes, and over seeds of the joints.

    values (N, K) are summed over rows; statistic: totals (..., K) -> (...). scenes, seeds: N each.
    With several seeds the statistic's mean over them. Without, or with one, BCa over scenes alone.
    """
    values, (names, scene) = np.asarray(values, float), np.unique(scenes, return_inverse=True)
    seeds = np.zeros(len(values)) if seeds is None else np.asarray(seeds)
    totals = []
    for seed in np.unique(seeds):
        totals.append(np.zeros((len(names), values.shape[1])))  # (S, K)
        np.add.at(totals[-1], scene[seeds == seed], values[seeds == seed])
    if len(totals) == 1:
        return _over_scenes(totals[0], statistic, len(values))
    by_seed = np.array([statistic(each.sum(axis=0)) for each in totals])  # (J,)
    draws = [statistic(story_weights(len(names)) @ each) for each in totals]  # J of (R,)
    parts = {"gill": Part(by_seed, np.stack(draws, axis=1))}
    number = resampled_interval(resample(parts, len(names), ("gill",)))
    return replace(number, n=len(values))


def _over_scenes(totals: np.ndarray, statistic: Callable, n: int) -> Interval:
    """The statistic of totals (S, K), with a bootstrap interval (BCa) over the S scenes."""
    from scipy.stats import bootstrap

    value = float(statistic(totals.sum(axis=0)))
    each = statistic(totals.sum(axis=0) - totals)  # leaving out one scene
    if len(totals) < 2 or np.ptp(each) < 1e-12:
        return Interval(value, None, None, n, "all scenes are alike")
    low, high = bootstrap(
        (np.arange(len(totals)),), lambda rows, axis: statistic(totals[rows].sum(axis=-2)),
        n_resamples=RESAMPLES, batch=500, confidence_level=CONFIDENCE, vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    if not np.isfinite([low, high]).all():
        return Interval(value, None, None, n, "too few different scores")
    return Interval(value, float(low), float(high), n)


def confusion(truth, answers) -> np.ndarray:
    """(N, 4): where a row counts, at its pair of truth and answer.

    Zero where the truth is no confident label or the answer is `same`; a coin counts by halves.
    """
    truth, chance = np.asarray(truth), chance_of_ret(answers)
    given = {"gen": np.nan_to_num(1 - chance), "ret": np.nan_to_num(chance)}
    return np.stack([(truth == a) * given[b] for a in CLASSES for b in CLASSES], axis=-1)


def macro_f1_of_counts(counts) -> np.ndarray:
    """Macro F1 from counts (..., A * 4) of `confusion`, mean over A who answered -> (...)."""
    counts = np.asarray(counts).reshape(*np.shape(counts)[:-1], -1, 2, 2)  # (..., A, truth, answer)
    right = np.einsum("...ii->...i", counts)
    total = counts.sum(-1) + counts.sum(-2)  # as truth and as answer
    return (2 * right / np.maximum(total, 1e-9)).mean(axis=(-1, -2))


def attributes(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """What a retrieved and a generated picture are worth, (N,) each: their right attributes."""
    return frame.retrieved.to_numpy() / 6, frame.generated.to_numpy() / 6


def raters_votes(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The same in the coin of those who look: their votes; `same` is half a vote for each."""
    cast = frame.votes.str.split(" ")
    shares = {vote: cast.map(lambda row, vote=vote: row.count(vote) / len(row)).to_numpy(float)
              for vote in ("ret", "gen", "same")}  # fmt: skip
    return shares["ret"] + shares["same"] / 2, shares["gen"] + shares["same"] / 2


def quality(frame: pd.DataFrame, answers, coin: Callable = attributes) -> np.ndarray:
    """What the chosen pictures are worth, (N,), in a coin: `attributes` or `raters_votes`."""
    chance, (retrieved, generated) = chance_of_ret(answers), coin(frame)
    return chance * retrieved + (1 - chance) * generated


def f1_interval(frame: pd.DataFrame, scenes, method: str) -> Interval:
    """Macro F1 of a column of answers against the confident labels, mean over seeds."""
    return f1_lead(frame, scenes, method, ())


def f1_lead(frame: pd.DataFrame, scenes, method: str, others: Sequence[str]) -> Interval:
    """Macro F1 of `method` minus that of the best of `others`, paired, mean over seeds."""
    methods = (method, *others)
    counts = [confusion(frame.label, frame[m]) for m in methods]

    def lead(totals):
        own, *rest = (macro_f1_of_counts(c) for c in np.split(totals, len(methods), axis=-1))
        return own - (np.max(rest, axis=0) if rest else 0)

    return _of_labelled(frame, np.concatenate(counts, axis=1), scenes, lead)


def raters_interval(frame: pd.DataFrame, scenes) -> Interval:
    """Macro F1 of the raters' own votes against the label they are part of, mean over raters."""
    votes = frame.votes.str.split(" ", expand=True)
    counts = [confusion(frame.label, votes[r]) for r in votes]
    return _of_labelled(frame, np.concatenate(counts, axis=1), scenes, macro_f1_of_counts)


def _of_labelled(frame, counts, scenes, statistic) -> Interval:
    known = np.isin(frame.label, CLASSES)
    if not known.any():
        raise GillError("no prompt has a confident label; macro F1 is undefined")
    if len(set(frame.label[known])) == 1:
        return Interval(None, None, None, int(known.sum()), "all labels are alike")
    return scene_interval(counts[known], np.asarray(scenes)[known], statistic, frame.seed[known])


def people_interval(prompts) -> Interval:
    """`votes.human_macro_f1` of real prompts, with an interval over prompts."""
    number = max(len(prompt.votes) for prompt in prompts)
    known = [p for p in prompts if p.label in CLASSES]
    counts = [
        confusion([p.label for p in known], [(*p.votes, *["same"] * number)[i] for p in known])
        for i in range(number)
    ]
    counts = np.concatenate(counts, axis=1)
    return scene_interval(counts, [*map(str, range(len(known)))], macro_f1_of_counts)


def quality_interval(frame: pd.DataFrame, scenes, method: str, coin=attributes) -> Interval:
    """What the pictures that `method` chooses are worth, a share."""
    return within(quality_lead(frame, scenes, method, (), coin), 0, 1)


def quality_lead(
    frame: pd.DataFrame, scenes, method: str, others: Sequence[str], coin=attributes
) -> Interval:
    """The worth of what `method` chooses minus that of the best of `others`, paired."""
    values = [quality(frame, frame[m], coin) for m in (method, *others)]
    values = np.stack([*values, np.ones(len(frame))], axis=1)

    def lead(totals):
        means = totals[..., :-1] / totals[..., -1:]
        return means[..., 0] - (means[..., 1:].max(axis=-1) if others else 0)

    return scene_interval(values, scenes, lead, frame.seed)
