"""The oracle's ceiling beside the attributes drawn."""

from gill_lite.evaluation.tables import TABLES
from gill_lite.report import ceiling


def row(context: str, mean, metric=ceiling.LABEL) -> dict:
    return {"method": "GILL", "context": context, "metric": metric, "mean": mean}


def test_each_context_has_what_could_be_known_above_what_is_drawn():
    one, five, full = (context.label for context in TABLES["1"].contexts)
    rows = [row(one, 0.345), row(full, 0.876), row(five, None), row(five, 9.9, "LPIPS ↓")]
    frame = ceiling.ceiling_frame(TABLES["1"], rows)
    assert list(frame.columns) == [one, five, full]
    assert list(frame.loc["GILL"]) == ["0.34", "–", "0.88"] or frame.loc["GILL", one] == "0.35"
    known = ceiling.ceilings("vist")
    assert [float(text) for text in frame.loc[ceiling.ORACLE]] == [
        round(known[seen], 2) for seen in ((1, 0), (5, 0), (5, 4))
    ]
    assert known[1, 0] < known[5, 0] < known[5, 4]


def test_dialogues_have_one_too_and_other_tasks_none():
    frame = ceiling.ceiling_frame(TABLES["2"], [])
    shares = [float(text) for text in frame.loc[ceiling.ORACLE]]
    assert shares == sorted(shares) and len(shares) == 3
    assert ceiling.ceiling_frame(TABLES["decide"], []).empty
