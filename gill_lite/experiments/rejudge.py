"""Judge committed results anew from the scores beside them: `python -m
gill_lite.experiments.rejudge`, after a claim or the rule of its verdict has changed.

Nothing is drawn. What single scores do not tell (Fréchet distances, what deciding is worth) stays
as it was; a claim about it whose statistic has changed is not run until its table is.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from gill_lite.evaluation.evaluate import judged
from gill_lite.evaluation.tables import TABLES, Table, choose
from gill_lite.experiments.mapper_ablation import both_contexts
from gill_lite.family import SYSTEMS
from gill_lite.family.editing import WAYS
from gill_lite.files import read_json, write_json
from gill_lite.provenance import repository_root
from gill_lite.report.claims import NOT_RUN
from gill_lite.report.numbers import FRECHET
from gill_lite.training.recipes import RECIPES


def rejudged(table: Table, result: dict, frame: pd.DataFrame) -> dict:
    """The content of a results file with what follows from its scores made anew."""
    told = judged(table, frame, learned=result.get("learned", RECIPES))
    kept = {row["id"]: row for row in result["verdicts"]}
    old = {_place(row): row for row in result["rows"]}
    told["rows"] = [_renewed(row, old.get(_place(row), row)) for row in told["rows"]]
    told["verdicts"] = [kept.get(row["id"], row) if row["undefined"] == NOT_RUN else row
                        for row in told["verdicts"]]  # fmt: skip
    return {**result, **told}


def _renewed(row: dict, old: dict) -> dict:
    """Ours anew, unless it is a distance; the paper's as the table's notebook has put it."""
    if row["metric"] in FRECHET.values():
        return old
    return {**row, "paper": old["paper"], "paper_pm": old["paper_pm"]}


def _place(row: dict) -> tuple:
    return row["method"], row["context"], row["metric"]


def as_run(table: Table, methods: Iterable[str]) -> Table:
    """The table as its notebook has it: with all contexts, and with the family's titles."""
    if table.typed == "mappers":
        return both_contexts(*table.parts)
    if table.typed == "edit":
        return replace(table, labels={name: WAYS[name].title for name in methods})
    if table.group == "family":
        return replace(table, labels={name: SYSTEMS[name].title for name in methods})
    return table


def main(folder: Path) -> None:
    """Every table whose claims are judged from single scores."""
    for table in choose(["all", "family"]):
        path = folder / f"{table.name}.json"
        if table is not TABLES["decide"] and path.is_file():
            frame = pd.read_csv(folder / f"{table.name}_scores.csv", dtype={"example": str})
            whole = as_run(table, frame["method"].unique())
            write_json(path, rejudged(whole, read_json(path, "results file"), frame))


if __name__ == "__main__":
    main(repository_root() / "results")
