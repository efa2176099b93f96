"""Verdicts are computed from per-story scores by one rule."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from gill_lite.errors import GillError
from gill_lite.report import claims as cl
from gill_lite.report.intervals import Interval
from gill_lite.report.numbers import paper_results

ABOVE = "clip_similarity: gill/captions5 - sd/captions5 > 0"


def frame(cells: dict, metric: str = "clip_similarity", seeds: int = 1) -> pd.DataFrame:
    """Long scores from (method, context) -> per-story values."""
    return pd.DataFrame([
        {"example": str(i), "method": method, "context": context, "seed": seed, metric: value}
        for (method, context), values in cells.items()
        for i, value in enumerate(values)
        for seed in range(seeds)
    ])  # fmt: skip


def scores(gain: float, noise: float, n: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.8, n)
    difference = rng.normal(0, noise, n)
    return frame({
        ("sd", "captions5"): base,
        ("gill", "captions5"): base + difference - difference.mean() + gain,
    })  # fmt: skip


def claim(statistic: str) -> cl.Claim:
    return cl.Claim("x", "vist", "says", "paper", cl.Statistic.read(statistic))


@pytest.mark.parametrize(
    ("gain", "noise", "expected"),
    [
        (0.10, 0.05, cl.REPRODUCED),
        (0.001, 0.05, cl.WITHIN_NOISE),
        (-0.001, 0.05, cl.NOT_REPRODUCED),
        (-0.10, 0.05, cl.NOT_REPRODUCED),
    ],
)
def test_verdict_follows_the_scores(gain, noise, expected):
    assert cl.judge(claim(ABOVE), scores(gain, noise))["verdict"] == expected
    mirrored = claim("clip_similarity: sd/captions5 - gill/captions5 < 0")
    assert cl.judge(mirrored, scores(gain, noise))["verdict"] == expected


@pytest.mark.parametrize(
    ("interval", "side", "expected"),
    [
        ((0.1, 0.01, 0.2), ">", cl.REPRODUCED),
        ((0.1, 0.0, 0.2), ">", cl.WITHIN_NOISE),  # touching is not beyond
        ((0.1, -0.01, 0.2), ">", cl.WITHIN_NOISE),
        ((0.0, -0.1, 0.1), ">", cl.NOT_REPRODUCED),
        ((-0.1, -0.2, 0.1), ">", cl.NOT_REPRODUCED),
        ((-0.1, -0.2, -0.01), "<", cl.REPRODUCED),
        ((-0.1, -0.2, 0.01), "<", cl.WITHIN_NOISE),
        ((0.1, 0.01, 0.2), "<", cl.NOT_REPRODUCED),
    ],
)
def test_the_rule_at_its_edges(interval, side, expected):
    assert cl.verdict(Interval(*interval, 10), side) == expected


def test_threshold_moves_the_line():
    assert cl.verdict(Interval(0.1, 0.06, 0.2, 10), ">", 0.05) == cl.REPRODUCED
    assert cl.verdict(Interval(0.1, 0.04, 0.2, 10), ">", 0.05) == cl.WITHIN_NOISE
    assert cl.verdict(Interval(0.04, 0.01, 0.2, 10), ">", 0.05) == cl.NOT_REPRODUCED
    with pytest.raises(GillError, match="side"):
        cl.verdict(Interval(0.1, 0.0, 0.2, 10), "=")


def test_without_scores_or_without_spread():
    assert (
        cl.judge(claim(ABOVE), frame({("gill", "captions5"): [1.0, 2.0]}))["verdict"] == cl.NOT_RUN
    )
    assert cl.judge(claim(ABOVE.replace("clip_similarity", "fid")), scores(0.1, 0.1))[
        "verdict"
    ] == (cl.NOT_RUN)
    constant = {("gill", "captions5"): [0.7, 0.7], ("sd", "captions5"): [0.5, 0.5]}
    assert cl.judge(claim(ABOVE), frame(constant))["verdict"] == cl.UNDEFINED


def test_stories_are_paired_by_id_not_by_place():
    data = scores(0.1, 0.0001)
    judged = cl.judge(claim(ABOVE), data.sample(frac=1, random_state=0))
    assert judged["high"] - judged["low"] < 0.001
    alone = data[~((data.method == "sd") & (data.example == "3"))]  # one story lacks its partner
    assert cl.judge(claim(ABOVE), alone)["n"] == 79


def test_signed_sum_of_cells():
    cells = {("gill", "captions5"): [7.0, 8.0], ("gill", "caption1"): [1.0, 2.5],
             ("sd", "captions5"): [3.0, 3.0], ("sd", "caption1"): [2.0, 1.0]}  # fmt: skip
    text = "lpips: gill/captions5 - gill/caption1 - sd/captions5 + sd/caption1 > 0"
    values = cl.Statistic.read(text).per_story(frame(cells, "lpips"))
    np.testing.assert_allclose(values, [7 - 1 - 3 + 2, 8 - 2.5 - 3 + 1])


@pytest.mark.parametrize(
    "text",
    ["", "gill/captions5 > 0", "lpips: gill - sd > 0", "lpips: a/b c/d > 0", "lpips: a/b = 0",
     "lpips: a/b - c/d > zero", "lpips: __import__('os')/x > 0"],
)  # fmt: skip
def test_unreadable_statistics_are_shown(text):
    with pytest.raises(GillError, match="cannot read the statistic"):
        cl.Statistic.read(text)


WITHOUT_NUMBERS = {"context-multimodal", "decide-f1", "retrieval-ahead-of-clip",
                   "retrieval-images-help"}  # our sources state no values  # fmt: skip


def test_the_papers_own_numbers_satisfy_every_claim():
    """A claim the paper's table does not carry is not the paper's."""
    paper = paper_results()
    claims = {item.id: item for item in cl.read_claims()}
    assert set(claims) >= WITHOUT_NUMBERS
    for item in claims.values():
        if item.id in WITHOUT_NUMBERS:
            continue
        values = paper[(paper.table == item.table) & (paper.metric == item.statistic.metric)]
        cells = values.set_index(["method", "context"])["value"]
        total = sum(s * cells[method, context] for s, method, context in item.statistic.terms)
        sign = 1 if item.statistic.side == ">" else -1
        assert sign * (total - item.statistic.threshold) > 0, item.id


def test_claims_file_holds_no_verdict_and_names_its_source():
    claims = cl.read_claims()
    counts = Counter(item.table for item in claims)
    assert counts["vist"] >= 7 and counts["visdial"] >= 6
    assert all("2305.17216" in item.source for item in claims)
    words = (cl.REPRODUCED, "within noise")
    assert not any(word in item.statement for item in claims for word in words)


def test_broken_claims_files_are_named(tmp_path):
    path = tmp_path / "claims.csv"
    path.write_text("id,statement\n")
    with pytest.raises(GillError, match="claims.csv must have the columns"):
        cl.read_claims(path)
    row = f"a,vist,says,paper,{ABOVE}\n"
    path.write_text("id,table,statement,source,statistic\n" + row + row)
    with pytest.raises(GillError, match="uses an id twice"):
        cl.read_claims(path)


def test_rows_of_claims_survive_json_and_become_a_frame():
    import json

    rows = json.loads(json.dumps([cl.judge(claim(ABOVE), scores(0.1, 0.05))]))
    assert rows[0]["verdict"] == cl.REPRODUCED and rows[0]["statistic"] == ABOVE
    assert rows[0]["low"] < rows[0]["difference"] < rows[0]["high"] and rows[0]["n"] == 80
    assert cl.verdicts_frame(rows)["our difference"][0].startswith("0.100 [0.0")
    assert cl.verdicts_frame([]).empty
    empty = [cl.judge(claim(ABOVE), scores(0.1, 0.05)[:0])]
    assert empty[0]["verdict"] == cl.NOT_RUN
