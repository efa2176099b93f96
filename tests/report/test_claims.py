"""Verdicts are computed from per-story scores by one rule."""

import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from gill_lite.errors import GillError
from gill_lite.report import claims as cl
from gill_lite.report.intervals import Interval
from gill_lite.report.numbers import paper_results
from gill_lite.report.scores import seed_scores

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
    }, seeds=3)  # fmt: skip


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
    assert cl.verdict(Interval(*interval, 30), side) == expected


def test_few_examples_are_too_few_for_any_verdict():
    for mean in (0.1, -0.1):
        assert cl.verdict(Interval(mean, mean - 0.01, mean + 0.01, 29)) == cl.TOO_FEW
    assert cl.verdict(Interval(0.1, 0.09, 0.11, 30)) == cl.REPRODUCED


def test_what_one_seed_decides_is_within_noise():
    stories, one = scores(0.1, 0.05), scores(0.1, 0.05)
    one = one[(one.method == "sd") | (one.seed == 1)]
    assert cl.judge(claim(ABOVE), stories)["verdict"] == cl.REPRODUCED
    assert cl.judge(claim(ABOVE), one)["verdict"] == cl.WITHIN_NOISE, "a single seed there is"
    assert cl.judge(claim(ABOVE), one)["seeds"] == 1
    lucky = stories.copy()  # of three seeds one alone is ahead, and by much
    ahead = (lucky.method == "gill") & (lucky.seed == 0)
    lucky.loc[ahead, "clip_similarity"] += 0.5
    lucky.loc[(lucky.method == "gill") & ~ahead, "clip_similarity"] -= 0.1
    assert cl.judge(claim(ABOVE), lucky)["verdict"] == cl.WITHIN_NOISE
    other = cl.judge(claim("clip_similarity: sd/captions5 > 0"), one)
    assert other["verdict"] == cl.REPRODUCED and other["seeds"] == 0, "it has no seeds to vary"


def test_all_bounds_of_a_statistic_must_hold_and_the_weakest_is_shown():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.05, 80)
    noise -= noise.mean()
    levels = {"a": 0.3, "b": 0.005, "c": -0.3}
    data = frame({("gill", name): noise + level for name, level in levels.items()}, seeds=3)
    both = cl.judge(claim("clip_similarity: gill/a > 0; gill/b > 0"), data)
    assert both["verdict"] == cl.WITHIN_NOISE and both["difference"] < 0.1
    three = cl.judge(claim("clip_similarity: gill/a > 0; gill/c > 0; gill/b > 0"), data)
    assert three["verdict"] == cl.NOT_REPRODUCED and three["difference"] < -0.2
    near = cl.judge(claim("clip_similarity: gill/a < 0.5; gill/a > 0.25"), data)
    assert near["verdict"] == cl.REPRODUCED and len(near["bounds"]) == 2
    missing = cl.judge(claim("clip_similarity: gill/a > 0; gill/none > 0"), data)
    assert missing["verdict"] == cl.NOT_RUN, "one length that was not run says nothing of all"
    assert cl.judged_anew(claim("clip_similarity: gill/a > 0; gill/b > 0"), both) == both


def test_a_share_is_held_against_its_yardstick():
    rng = np.random.default_rng(0)
    base = rng.normal(0.3, 0.02, 80)
    data = frame({("sd", "one"): base, ("sd", "five"): base + rng.normal(0.02, 0.02, 80),
                  ("gill", "one"): base, ("gill", "five"): base + rng.normal(0.2, 0.02, 80)},
                 seeds=3)  # fmt: skip
    share = "clip_similarity: sd/five - sd/one per gill/five - gill/one"
    row = cl.judge(claim(f"{share} < 0.25"), data)
    assert row["verdict"] == cl.REPRODUCED and 0.05 < row["low"] < 0.1 < row["high"] < 0.15
    assert cl.judge(claim(f"{share} > 0.25"), data)["verdict"] == cl.NOT_REPRODUCED
    turned = claim("clip_similarity: sd/five - sd/one per gill/one - gill/five < 0.25")
    assert cl.judge(turned, data)["verdict"] == cl.UNDEFINED, "a yardstick below 0 is none"


def test_without_a_statistic_there_is_a_reason_and_no_count():
    told = cl.judge(claim("none: nothing here can be measured"), scores(0.1, 0.05))
    assert told["verdict"] == cl.NO_STATISTIC and "nothing here" in told["statistic"]
    other = cl.judge(claim(ABOVE), scores(0.1, 0.05))
    assert cl.count_text([told, other]) == (
        "1 of 1 claims reproduced; 1 more has no statistic here."
    )


def test_claims_of_other_papers_are_counted_apart():
    """By their source: a claim of GILL's paper may be judged in a table of the family."""
    other = {"table": "family_see", "source": "Li et al.", "verdict": cl.NOT_REPRODUCED}
    own = [
        {"table": table, "source": f"Koh et al. ({cl.GILL})", "verdict": cl.REPRODUCED}
        for table in ("table1", "family_see")
    ]
    assert cl.count_text([other, *own]) == (
        "2 of 2 claims reproduced. Of other papers: 0 of 1 claims reproduced; 1 not reproduced."
    )


def test_a_row_of_another_statistic_is_no_verdict_on_this_one():
    row = cl.judge(claim(ABOVE), scores(0.1, 0.05))
    assert cl.judged_anew(claim(ABOVE), row)["verdict"] == cl.REPRODUCED
    stricter = claim(ABOVE.replace("> 0", "> 0.01"))
    assert cl.judged_anew(stricter, row)["verdict"] == cl.NOT_RUN


def test_threshold_moves_the_line():
    assert cl.verdict(Interval(0.1, 0.06, 0.2, 30), ">", 0.05) == cl.REPRODUCED
    assert cl.verdict(Interval(0.1, 0.04, 0.2, 30), ">", 0.05) == cl.WITHIN_NOISE
    assert cl.verdict(Interval(0.04, 0.01, 0.2, 30), ">", 0.05) == cl.NOT_REPRODUCED
    with pytest.raises(GillError, match="side"):
        cl.verdict(Interval(0.1, 0.0, 0.2, 30), "=")


def test_without_scores_or_without_spread():
    assert (
        cl.judge(claim(ABOVE), frame({("gill", "captions5"): [1.0, 2.0]}))["verdict"] == cl.NOT_RUN
    )
    assert cl.judge(claim(ABOVE.replace("clip_similarity", "fid")), scores(0.1, 0.1))[
        "verdict"
    ] == (cl.NOT_RUN)
    constant = {("gill", "captions5"): [0.7] * 30, ("sd", "captions5"): [0.5] * 30}
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
    (bound,) = cl.Statistic.read(text).bounds
    values = seed_scores(frame(cells, "lpips", seeds=2), "lpips", bound.terms)
    np.testing.assert_allclose(values["gill"], [[7 - 1] * 2, [8 - 2.5] * 2])
    np.testing.assert_allclose(values["sd"], [[-3 + 2] * 2, [-3 + 1] * 2])


@pytest.mark.parametrize(
    "text",
    ["", "gill/captions5 > 0", "lpips: gill - sd > 0", "lpips: a/b c/d > 0", "lpips: a/b = 0",
     "lpips: a/b - c/d > zero", "lpips: __import__('os')/x > 0", "none:", "lpips: a/b per > 0",
     "lpips: a/b > 0;", "a/b > 0; lpips: a/b > 0"],
)  # fmt: skip
def test_unreadable_statistics_are_shown(text):
    with pytest.raises(GillError, match="cannot read the statistic"):
        cl.Statistic.read(text)


FAMILY = {"family_see", "family_draw", "family_edit", "family_teach"}  # mostly of other papers
WITHOUT_NUMBERS = {"context", "decide", "retrieval", "ladder"} | FAMILY  # no values are stated


def test_the_papers_own_numbers_satisfy_every_claim():
    """A claim the paper's table does not carry is not the paper's."""
    paper = paper_results()
    claims = {item.id: item for item in cl.read_claims()}
    assert {item.table for item in claims.values()} > WITHOUT_NUMBERS
    for item in claims.values():
        if item.table in WITHOUT_NUMBERS:
            continue
        values = paper[(paper.table == item.table) & (paper.metric == item.statistic.metric)]
        cells = values.set_index(["method", "context"])["value"]
        for bound in item.statistic.bounds:
            above, below = (sum(s * cells[method, context] for s, method, context in terms)
                            for terms in (bound.terms, bound.per))  # fmt: skip
            assert below > 0 or not bound.per, item.id
            sign = 1 if bound.side == ">" else -1
            value = above / below if bound.per else above
            assert sign * (value - bound.threshold) > 0, item.id
            told = re.search(r"the paper: (?:a loss of )?(\d+\.\d+)", item.statement)
            if told:  # the statement names the paper's own ratio
                assert round(abs(value), len(told[1].split(".")[1])) == float(told[1]), item.id


def test_statements_count_what_their_statistic_counts():
    """A claim about several lengths has a bound for each; a level has one to both sides."""
    claims = {item.id: item.statistic.bounds for item in cl.read_claims()}
    contexts = [{context for _, _, context in b.terms} for b in claims["context-multimodal"]]
    assert contexts == [{f"captions{n}", f"captions{n}_images{n - 1}"} for n in range(2, 6)]
    for name in ("vist-lpips-level", "vist-sd-lpips-flat", "visdial-lpips-one-round"):
        assert [(b.side, b.threshold) for b in claims[name]] == [("<", 0.25), (">", -0.25)]


def test_claims_file_holds_no_verdict_and_names_its_source():
    claims = cl.read_claims()
    counts = Counter(item.table for item in claims)
    assert counts["vist"] >= 7 and counts["visdial"] >= 6
    of_family = [item for item in claims if item.table in FAMILY]
    assert {item.table for item in of_family} == FAMILY
    assert all(re.search(r"\(arXiv:\d{4}\.\d{5}\)", item.source) for item in of_family)
    assert all("2305.17216" in item.source for item in claims if item not in of_family)
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
    assert cl.judged_anew(claim(ABOVE), rows[0]) == rows[0]
    assert cl.verdicts_frame([]).empty
    empty = [cl.judge(claim(ABOVE), scores(0.1, 0.05)[:0])]
    assert empty[0]["verdict"] == cl.NOT_RUN


def test_claims_of_other_papers_count_where_their_table_is_there():
    alone = cl.all_verdicts([])
    assert {row["id"] for row in alone if row["table"] in FAMILY} == {"family-gill-shots"}
    assert all(
        cl.GILL in row["source"] and row["verdict"] == cl.NOT_RUN
        for row in alone
        if row["table"] in FAMILY
    )
    seen = cl.all_verdicts([{"topic": "family_see", "verdicts": []}])
    assert {row["table"] for row in seen if row not in alone} == {"family_see"}
