"""A table of the family: scored with what ships, resumed, told with what each system cost."""

import pandas as pd
import pytest

from gill_lite.cli import main as cli
from gill_lite.errors import GillError
from gill_lite.evaluation import evaluate, tables
from gill_lite.evaluation.tables import Table, choose
from gill_lite.evaluation.tasks import SCENES, SPLITS
from gill_lite.experiments import rejudge
from gill_lite.family import SYSTEMS, editing, seeing, table
from gill_lite.files import DATA, read_json
from gill_lite.report import claims, summary

TABLE = Table(
    "see", "family_see", SCENES, "Shown a picture", contexts=tuple(SPLITS.values()),
    baselines=(), learned=(), notebook="21.ipynb", topic="family_see", group="family",
)  # fmt: skip
EXAMPLES, RESULTS = 3, DATA.parent / "results"


@pytest.fixture(scope="module")
def family():
    return table.Family([SYSTEMS["clip"], SYSTEMS["gill"]], [0])


def test_a_table_is_computed_kept_and_read_by_the_report(family, tmp_path):
    pool = {split: seeing.examples(split, EXAMPLES) for split in SPLITS}
    config, run = table.compute(TABLE, family, pool, seeing.score, tmp_path, progress=False)
    assert run.scored == run.eligible == 2 * 2 * EXAMPLES
    result = table.results(TABLE, family, config, run, 0.0, seeing.facts)
    assert {row["method"] for row in result["rows"]} == {"CLIP alone", "GILL"}
    clip, gill = result["systems"]["clip-0"], result["systems"]["gill-0"]
    assert clip["learned"] == 0 < gill["learned"] and "story_loss" not in clip
    assert clip["milliseconds"] > 0 and gill["story_loss"] > 0
    evaluate.save(tmp_path, run, result)
    read, broken = summary.read_results(tmp_path / "results")
    assert not broken and read["family_see"]["settings"]["num_scenes"] == EXAMPLES
    assert list(summary.joints_frame(read).index) == ["gill-0"], "CLIP is no joint"
    assert len(summary.hashes_frame(read)) == 1

    def never(*_):
        raise AssertionError("all is scored already")

    assert table.compute(TABLE, family, pool, never, tmp_path, progress=False)[1].rows == run.rows


def test_seeds_are_those_that_ship():
    assert table.Family([SYSTEMS["gill"], SYSTEMS["clip"]], [1, 2]).cells == [
        ("gill", 1),
        ("gill", 2),
        ("clip", 0),
    ]


def test_a_group_is_named_at_once_where_its_weights_are(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "DATA", tmp_path)
    for name in ("family", "see"):
        with pytest.raises(GillError, match=f"the weights of '{name}' are not in .*; known: 1, 2"):
            choose([name])
    with pytest.raises(GillError, match="no table 'sea' to reproduce; known: 1, 2"):
        choose(["sea"])
    (tmp_path / "family").mkdir()
    assert [each.typed for each in choose(["family"])] == ["see", "draw", "edit", "teach"]
    assert "see" not in [each.typed for each in choose(["all"])]


def test_a_table_of_the_family_is_not_one_to_evaluate(capsys):
    assert cli.main(["evaluate", "see"]) == 2
    assert "no table 'see' to evaluate; known: 1, 2" in capsys.readouterr().err


def test_a_system_that_was_trained_once_decides_nothing():
    rows = [
        {"example": str(i), "method": method, "context": "seen", "seed": seed, "which": value}
        for i in range(60)
        for method, seed, value in (("llava", 0, 1.0 - i % 7 / 50), ("limber", 0, i % 5 / 9))
    ]
    [claim] = [claim for claim in claims.read_claims() if claim.id == "family-instructed"]
    frame = pd.DataFrame(rows)
    once = claims.judge(claim, frame, learned={"llava", "limber"})
    assert once["seeds"] == 1 and once["verdict"] == claims.WITHIN_NOISE
    assert claims.judge(claim, frame)["verdict"] == claims.REPRODUCED  # of no known training


FAMILY = [each for each in tables.TABLES.values() if each.group == "family"]


@pytest.mark.parametrize("each", FAMILY, ids=lambda each: each.typed)
def test_reproduce_gives_a_family_notebook_seeds_to_look_for(each):
    assert each.seeds_for(None) == (0, 1, 2) and each.seeds_for([1]) == (1,)


@pytest.mark.parametrize("each", FAMILY, ids=lambda each: each.typed)
def test_the_committed_results_follow_from_their_scores(each):
    told = read_json(DATA.parent / "results" / f"{each.name}.json")
    frame = pd.read_csv(DATA.parent / "results" / f"{each.name}_scores.csv")
    judged = [claim for claim in claims.read_claims() if claim.table == each.topic]
    again = {"learned": told["learned"]} if "learned" in told else {}
    verdicts = {c.id: claims.judge(c, frame, **again)["verdict"] for c in judged}
    assert verdicts == {row["id"]: row["verdict"] for row in told["verdicts"]} != {}
    assert len(frame) == told["counts"]["scored"] and told["counts"]["skipped"] == {}
    made = rejudge.rejudged(rejudge.as_run(each, frame["method"].unique()), told, frame)
    rows = {place_of(row): row["mean"] for row in told["rows"]}
    assert rows == {place_of(row): pytest.approx(row["mean"], abs=1e-9) for row in made["rows"]}


def place_of(row: dict) -> tuple:
    return row["method"], row["context"], row["metric"]


@pytest.mark.parametrize("name", ["see", "draw", "edit", "teach"])
def test_committed_rows_tell_of_how_many_trainings_they_are(name):
    result = read_json(RESULTS / f"family_{name}.json")
    scores = pd.read_csv(RESULTS / f"family_{name}_scores.csv", dtype={"example": str})
    ways = editing.WAYS if name == "edit" else {}
    titles = {name: one.title for name, one in {**SYSTEMS, **ways}.items()}
    trained = {
        titles[n]: scores[scores["method"] == n]["seed"].nunique() for n in result["learned"]
    }
    assert {row["method"]: row["seeds"] for row in result["rows"]} == {
        row["method"]: trained.get(row["method"], 0) for row in result["rows"]
    }
