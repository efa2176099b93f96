"""How near the attributes drawn come to what could be known at all (mini world only).

An oracle (`world.oracle`) remembers whatever words and pictures have told and guesses the rest. It
knows no scores: where it knows little, nobody can draw much.
"""

from functools import lru_cache

import pandas as pd

from gill_lite.report.numbers import METRICS
from gill_lite.world import oracle

ORACLE = "what could be known"
TOPICS = ("vist", "visdial")  # that an oracle reads
LABEL = METRICS["attribute_accuracy"]


@lru_cache
def ceilings(topic: str, split: str = "seen") -> dict[tuple[int, int], float]:
    """Share of attributes that an oracle knows, by texts and pictures seen."""
    if topic == "vist":
        return dict(zip(((1, 0), (5, 0), (5, 4)), oracle.of_stories(split=split).values(),
                        strict=True))  # fmt: skip
    return {(rounds, 0): share for rounds, share in oracle.of_dialogues(split=split).items()}


def ceiling_frame(table, rows: list[dict]) -> pd.DataFrame:
    """Attribute accuracy of each method in each context, below what an oracle knows there.

    table: of the catalogue; rows: of its results file. Empty where no oracle reads its task.
    """
    if table.task.name not in TOPICS:
        return pd.DataFrame()
    known = ceilings(table.task.name, table.split)
    seen = {c.label: known[c.texts, c.images] for c in table.contexts
            if (c.texts, c.images) in known}  # fmt: skip
    shown = {ORACLE: {label: f"{share:.2f}" for label, share in seen.items()}}
    for row in rows:
        if row["metric"] == LABEL and row["mean"] is not None and row["context"] in seen:
            shown.setdefault(row["method"], {})[row["context"]] = f"{row['mean']:.2f}"
    return pd.DataFrame(shown).T.reindex(columns=list(seen)).fillna("–")
