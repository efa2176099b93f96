"""Votes for `gen`, `ret` or `same`: the real ones on PartiPrompts, and simulated raters.

Of the real annotations the repository ships the votes only (data/partiprompts_votes.csv). Both
kinds go through the same label rule and the same measures (paper §3.3).
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from gill_lite.answering.decision import CLASSES
from gill_lite.datasets.partiprompts import VOTES, Prompt, confident_label, read_partiprompts
from gill_lite.errors import GillError
from gill_lite.files import read_text, shipped
from gill_lite.world.scene import rng_for

RATERS = 5
QUESTIONS = ("alignment", "realism")
COLUMNS = ["row", *(f"{q}_{i}" for q in QUESTIONS for i in range(1, RATERS + 1))]
NOISES = np.arange(0.5, 4.01, 0.25)  # attributes; tried in the calibration
MARGINS = np.arange(0.1, 1.51, 0.1)  # attributes too


# ---- the real votes ----------------------------------------------------------------------


def votes_csv(alignment_tsv, realism_tsv) -> str:
    """The votes of the two official files as CSV: row number, five votes on each question.

    No prompt is copied. A vote that is missing there is empty here. Raises GillError where the
    files are broken or are not about the same prompts.
    """
    readings = [read_partiprompts(path).examples for path in (alignment_tsv, realism_tsv)]
    if [p.text for p in readings[0]] != [p.text for p in readings[1]]:
        raise GillError(f"{alignment_tsv} and {realism_tsv} are not about the same prompts")
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row, prompts in enumerate(zip(*readings, strict=True), start=1):
        votes = [(*p.votes, *[""] * (RATERS - len(p.votes))) for p in prompts]
        writer.writerow([row, *votes[0], *votes[1]])
    return lines.getvalue()


def read_votes(path=None, question: str = "alignment") -> list[Prompt]:
    """The votes on one question as prompts without their text.

    Raises GillError for an unknown question, or naming the file and line that is broken.
    """
    if question not in QUESTIONS:
        raise GillError(f"the votes are on {' and '.join(QUESTIONS)}, not on {question!r}")
    path = path or shipped("partiprompts_votes.csv")
    reader = csv.DictReader(read_text(path, "votes file").splitlines())
    if reader.fieldnames != COLUMNS:
        raise GillError(f"votes file {path} must have the columns {', '.join(COLUMNS)}")
    prompts = []
    for row in reader:
        votes = tuple(v for name in COLUMNS[1:] if name.startswith(question) and (v := row[name]))
        if not votes or set(votes) - set(VOTES):
            raise GillError(f"line {reader.line_num} of {path} has votes that are none: {votes}")
        prompts.append(voted(votes))
    return prompts


def voted(votes: Sequence[str]) -> Prompt:
    """A prompt of which only the votes are known."""
    return Prompt("", "", "", "", tuple(votes), confident_label(votes))


# ---- how much raters agree ---------------------------------------------------------------


def labelled(prompts: list[Prompt]) -> list[Prompt]:
    """The prompts whose annotators agree: label `gen` or `ret`."""
    return [prompt for prompt in prompts if prompt.label in CLASSES]


def macro_f1(truth, answers) -> float | None:
    """Mean of the two classes' F1; None (undefined) for no examples."""
    from sklearn.metrics import f1_score

    truth, answers = list(truth), list(answers)
    if len(truth) != len(answers):
        raise GillError(f"macro F1 needs one answer a label, got {len(answers)} for {len(truth)}")
    if not truth:
        return None
    return float(f1_score(truth, answers, labels=CLASSES, average="macro", zero_division=0.0))


def constant_macro_f1(truth, answer: str) -> float | None:
    """What always answering `answer` would score."""
    return macro_f1(truth, [answer] * len(list(truth)))


def human_macro_f1(prompts: list[Prompt]) -> float:
    """Mean over the annotators of their macro F1 against the confident labels.

    An annotator's own `same` votes are dropped, and so are prompts they did not see. The
    label contains their vote, so this is generous to people.
    """
    if not labelled(prompts):
        raise GillError("human performance needs prompts that are labelled gen or ret")
    return _mean_macro_f1(prompts, lambda prompt, annotator: prompt.label)


def left_out_macro_f1(prompts: list[Prompt]) -> float:
    """As `human_macro_f1`, but against the label that the *other* annotators give.

    Prompts on which they do not agree are left out, and so are the annotator's `same` votes.
    """

    def label_of_others(prompt: Prompt, annotator: int) -> str:
        return confident_label(prompt.votes[:annotator] + prompt.votes[annotator + 1 :])

    return _mean_macro_f1(prompts, label_of_others)


def _mean_macro_f1(prompts: list[Prompt], label_for: Callable[[Prompt, int], str]) -> float:
    scores = []
    for annotator in range(max((len(prompt.votes) for prompt in prompts), default=0)):
        seen = [p for p in prompts if annotator < len(p.votes) and p.votes[annotator] in CLASSES]
        pairs = [(label_for(p, annotator), p.votes[annotator]) for p in seen]
        pairs = [(label, vote) for label, vote in pairs if label in CLASSES]
        scores.append(macro_f1([label for label, _ in pairs], [vote for _, vote in pairs]))
    return float(np.mean([score for score in scores if score is not None]))


def agreement(prompts: list[Prompt]) -> dict[str, float]:
    """Six figures of a set of votes; the first two are what simulated raters are fitted to."""
    counts = Counter(vote for prompt in prompts for vote in prompt.votes)
    if not (kappas := pairwise_kappas(prompts)):
        raise GillError("Cohen's kappa is undefined: all votes are one and the same")
    known = labelled(prompts)
    return {
        "confident labels, share": len(known) / len(prompts),
        "human macro F1": human_macro_f1(prompts),
        "macro F1, own vote left out": left_out_macro_f1(prompts),
        "labels ret among the confident, share": sum(p.label == "ret" for p in known) / len(known),
        "votes for same, share": counts["same"] / counts.total(),
        "Cohen's kappa, mean of pairs": float(np.mean(kappas)),
    }


def pairwise_kappas(prompts: list[Prompt]) -> list[float]:
    """Cohen's kappa of every two annotators, by scikit-learn, over the prompts both voted on.

    Two whose votes there are all one and the same have none, and are left out.
    """
    from sklearn.metrics import cohen_kappa_score

    number = max((len(prompt.votes) for prompt in prompts), default=0)
    kappas = []
    for a, b in combinations(range(number), 2):
        both = [(p.votes[a], p.votes[b]) for p in prompts if len(p.votes) > b]
        if len({vote for votes in both for vote in votes}) > 1:
            kappas.append(float(cohen_kappa_score(*zip(*both, strict=True), labels=list(VOTES))))
    return kappas


def shuffled(prompts: list[Prompt], seed: int = 0) -> list[Prompt]:
    """The same votes, each annotator's dealt to other prompts: agreement by chance alone.

    Prompts that not all annotators saw are left out.
    """
    rng, number = np.random.default_rng(seed), max(len(prompt.votes) for prompt in prompts)
    votes = np.array([p.votes for p in prompts if len(p.votes) == number])  # (N, annotators)
    return [voted(row.tolist()) for row in rng.permuted(votes, axis=0)]


# ---- simulated raters --------------------------------------------------------------------


class Raters(NamedTuple):
    """What the raters' votes depend on; all five are alike but for their noise."""

    noise: float  # standard deviation, in attributes, of what a rater takes a pair's lead to be
    margin: float  # leads below it, in attributes, are ties: realism decides

    def votes(self, leads, noise, tastes="same") -> list[Prompt]:
        """Prompts with votes. leads (N,): attributes right in the generated picture minus those
        in the retrieved one. noise (N, raters), standard normal: see `rater_noise`. tastes
        (N, raters): what each votes where agreement with the prompt is a tie, see `tastes_of`."""
        seen = np.asarray(leads)[:, None] + self.noise * np.asarray(noise)  # (N, raters)
        votes = np.where(seen >= self.margin, "gen", np.where(seen <= -self.margin, "ret", tastes))
        return [voted(row) for row in votes.tolist()]


def rater_noise(keys: Sequence[tuple]) -> np.ndarray:
    """Standard normal noise (N, raters); a number depends on the rater and the pair's key alone."""
    return np.array(
        [[rng_for("rater", r, *key).standard_normal() for r in range(RATERS)] for key in keys]
    )


def tastes_of(frame) -> np.ndarray:
    """What each rater votes at a tie, (N, raters), by seed and example of a frame of pairs.

    Real votes on realism: those that five people cast on one PartiPrompts pair, drawn at random
    from the pairs that people could not tell apart by agreement with the prompt. So both what
    raters like and how far they like the same are people's own; nothing is fitted.
    """
    both = zip(read_votes(), read_votes(question="realism"), strict=True)
    ties = [real.votes for agrees, real in both
            if agrees.label == "same" and len(real.votes) == RATERS]  # fmt: skip
    keys = zip(frame.seed.tolist(), frame.example, strict=True)
    return np.array([ties[rng_for("taste", *key).integers(len(ties))] for key in keys])


def calibrate(
    leads, noise, real: list[Prompt], noises=NOISES, margins=MARGINS, tastes="same"
) -> Raters:
    """The raters whose share of confident labels and human macro F1 are nearest the real ones.

    Both gaps count alike. Nothing but votes is looked at: no classifier, no features. The shares
    of `gen` and `ret` are not fitted: they are held beside people's.
    """

    def figures(prompts):
        if len({p.label for p in labelled(prompts)}) < 2:  # everything on one side, or nothing
            return np.zeros(2)
        return np.array([len(labelled(prompts)) / len(prompts), human_macro_f1(prompts)])

    goal = figures(real)
    tried = [Raters(float(n), float(m)) for n in noises for m in margins]
    gaps = [np.abs(figures(raters.votes(leads, noise, tastes)) - goal).sum() for raters in tried]
    return tried[int(np.argmin(gaps))]


def with_votes(frame, prompts: list[Prompt]):
    """A frame of pairs with two more columns: `votes`, separated by blanks, and `label`."""
    return frame.assign(
        votes=[" ".join(p.votes) for p in prompts], label=[p.label for p in prompts]
    )


def noise_of(frame) -> np.ndarray:
    """The raters' noise (N, raters) on the pairs of a frame, by seed and example."""
    return rater_noise(list(zip(frame.seed.tolist(), frame.example, strict=True)))


def vote(frame, real: list):
    """Pairs with simulated votes, and the `Raters`, who agree as much as the real ones do."""
    leads, noise = (frame.generated - frame.retrieved).to_numpy(), noise_of(frame)
    tastes = tastes_of(frame)
    raters = calibrate(leads, noise, real, tastes=tastes)
    return with_votes(frame, raters.votes(leads, noise, tastes)), raters
