"""What came out of deciding: from scored pairs to a results file (paper §3.3)."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd

from gill_lite import provenance
from gill_lite.evaluation.run import RunResult
from gill_lite.experiments.deciding import choices, votes
from gill_lite.experiments.deciding.questions import SPLITS, TABLE, Question
from gill_lite.files import write_json, write_text
from gill_lite.report.claims import Bound, Claim, Statistic, claim_row, read_claims
from gill_lite.report.intervals import Interval
from gill_lite.world.scene import ATTRIBUTES

LEADS = {"constants": ("gen", "ret"), "coin": ("coin",)}  # what the decision is held against
F1, ACCURACY, VOTES = "macro F1 ↑", "attribute accuracy ↑", "raters' votes ↑"
COINS = {ACCURACY: choices.attributes, VOTES: choices.raters_votes}  # what an answer is worth
KEPT = ["example", "method", "context", "seed", "part", "retrieved", "generated", "retrieved_id",
        "retrieved_score", *(f"right_{name}" for name in ATTRIBUTES), "votes", "label",
        "threshold", "linear"]  # fmt: skip


def committed(results: Path, seed: int) -> pd.DataFrame:
    """The reference run in a folder of results, for one seed of the joints.

    A row a prompt, in the order of `questions.make`: both pictures' scores, votes and answers.
    """
    frame = pd.read_csv(results / f"{TABLE.name}_scores.csv")
    return frame[frame.seed == seed].reset_index(drop=True)


def held_out(frame: pd.DataFrame, asked: Sequence) -> tuple[pd.DataFrame, pd.Series]:
    """The rows of the test part, and the name of each row's scene."""
    test, scene = frame[frame.part == "test"], {q.example_id: str(q.scene) for q in asked}
    return test, test.example.map(scene)


def result_rows(frame: pd.DataFrame, asked: list[Question], real: list) -> list[dict]:
    """Macro F1 of each way to choose and what its answers are worth, in both coins, in the form of
    numbers.result_rows."""
    test, scenes = held_out(frame, asked)
    rows = [
        row("people", "PartiPrompts", F1, choices.people_interval(real)),
        row("simulated raters", "all prompts", F1, choices.raters_interval(test, scenes)),
    ]
    where = {"all prompts": test.context.notna()}
    where |= {f"{split} scenes": test.context == split for split in SPLITS}
    for method, label in choices.METHODS.items():
        rows.append(row(label, "all prompts", F1, choices.f1_interval(test, scenes, method)))
        for (context, those), (metric, coin) in product(where.items(), COINS.items()):
            interval = choices.quality_interval(test[those], scenes[those], method, coin)
            rows.append(row(label, context, metric, interval))
    return rows


def row(method: str, context: str, metric: str, interval: Interval) -> dict:
    """A result in the form of numbers.result_rows."""
    labels = {"method": method, "context": context, "metric": metric}
    return {**labels, **asdict(interval), "paper": None, "paper_pm": None}


def judged(frame: pd.DataFrame, asked: list[Question]) -> dict[str, list[dict]]:
    """The paper's claim, judged by macro F1 ("verdicts"), and our three "controls" of it.

    Macro F1 of a constant is low, so that even a coin is ahead of it: the controls ask whether
    the decision is ahead of the coin, and whether the answers are better for it, in the coin of
    attributes and in that of the raters, who see realism, too.
    """
    test, scenes = held_out(frame, asked)
    constants, coin = (choices.f1_lead(test, scenes, "linear", LEADS[name]) for name in LEADS)
    answer, liked = (choices.quality_lead(test, scenes, "linear", LEADS["constants"], coin)
                     for coin in COINS.values())  # fmt: skip
    return {
        "verdicts": [claim_row(c, constants) for c in read_claims() if c.table == TABLE.name],
        "controls": [
            _control("coin", "The decision is better than a coin as biased as the labels",
                     "macro F1: linear - coin > 0", coin),
            _control("answer", "With the decision the answer's picture is better than with a "
                     "constant", "attribute accuracy: linear - max(always generate, always "
                     "retrieve) > 0", answer),
            _control("votes", "With the decision raters like the answer's picture better than "
                     "with a constant", "raters' votes: linear - max(always generate, always "
                     "retrieve) > 0", liked),
        ],
    }  # fmt: skip


def _control(name: str, statement: str, text: str, interval: Interval) -> dict:
    """A claim of our own about the decision: a lead, above 0."""
    statistic = Statistic(metric="", bounds=(Bound((), (), ">", 0.0),), text=text)
    claim = Claim(f"control-{name}", TABLE.name, statement, "control", statistic)
    return claim_row(claim, interval)


def differences(frame: pd.DataFrame, asked: list[Question], method: str = "linear") -> list[dict]:
    """All measures of `method` minus those of every other way to choose, paired."""
    test, scenes = held_out(frame, asked)
    leads: dict[str, Callable[..., Interval]] = {F1: choices.f1_lead}
    leads |= {name: partial(choices.quality_lead, coin=coin) for name, coin in COINS.items()}
    return [
        {"against": choices.METHODS[other], "metric": metric,
         **asdict(lead(test, scenes, method, (other,)))}
        for other in choices.METHODS if other != method for metric, lead in leads.items()
    ]  # fmt: skip


def results(
    frame: pd.DataFrame, asked: list[Question], real: list, run: RunResult, started: float,
    raters: votes.Raters, fitted: list, why: dict, seeds: list[int], run_seed: int,
) -> dict:  # fmt: skip
    """What results/decide.json holds. why: see `reasons`."""
    simulated = [votes.voted(cast.split()) for cast in frame.votes]
    return {
        "table": TABLE.name,
        "title": TABLE.title,
        "topic": TABLE.topic,
        "rows": result_rows(frame, asked, real),
        **judged(frame, asked),
        "differences": differences(frame, asked),
        "counts": run.counts,
        "settings": {"seeds": seeds, "num_prompts": len(asked), "run_seed": run_seed},
        "raters": raters._asdict(),
        "fitted": fitted,
        "agreement": {"people": votes.agreement(real), "simulated": votes.agreement(simulated)},
        "why": why,
        "provenance": provenance.collect(started, "mini", TABLE.command, run.earlier_seconds),
        "figures": [],
    }


def save(output_dir, frame: pd.DataFrame, result: dict) -> Path:
    """Write the results file and, beside it, a row for every pair."""
    folder = Path(output_dir) / "results"
    write_text(folder / f"{TABLE.name}_scores.csv", frame[KEPT].to_csv(index=False))
    return write_json(folder / f"{TABLE.name}.json", result)
