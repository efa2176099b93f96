"""The mapper ablation: two runs as one table, what mappers cost, differences to one method."""

import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gill_lite.answering.respond import Responder
from gill_lite.errors import GillError
from gill_lite.evaluation.drawers import GillDrawer, StableDiffusion
from gill_lite.evaluation.evaluate import Evaluation
from gill_lite.evaluation.run import RunResult
from gill_lite.evaluation.tables import TABLES
from gill_lite.experiments import frechet, mapper_ablation
from gill_lite.model.checkpoint import save_joints
from gill_lite.model.gill import build_gill
from gill_lite.report import claims
from gill_lite.report.intervals import mean_interval, paired_interval
from gill_lite.report.scores import scores_frame
from tests.helpers import tiny_evaluation

STORIES, CAPTIONS = 3, 4
MAPPERS, TOKENS = TABLES["mappers"], TABLES["tokens"]


def drawers() -> dict:
    """Every mapper of the ablation on the same tiny backbones, one seed."""
    tiny = tiny_evaluation.backbones()
    gills = {name: build_gill(tiny.profile, tiny, name) for name in MAPPERS.learned}
    responders = {name: Responder(tiny, gill) for name, gill in gills.items()}
    return {("sd", 0): StableDiffusion(responders["gill"])} | {
        (name, 0): GillDrawer(responder) for name, responder in responders.items()
    }


@pytest.fixture(scope="module")
def mappers(tmp_path_factory):
    folder, models, parts = tmp_path_factory.mktemp("ablation"), drawers(), []
    for table, count in zip(MAPPERS.parts, (STORIES, CAPTIONS), strict=True):
        table = replace(table, metrics=("clip_similarity", "lpips"))
        scorer = tiny_evaluation.scorer(
            table.task, folder / table.task.name, count, drawers=models, table=table
        )
        config = {"table": table.name, "profile": {"name": "mini"}, "count": None,
                  "data": {"taken": count}, "seeds": [0], "run_seed": 0}  # fmt: skip
        rows = folder / table.name
        parts.append(Evaluation(table, scorer.dataset, models, scorer, (0,), config, rows, 2))
    return mapper_ablation.Ablation(*parts)


@pytest.fixture(scope="module")
def done(mappers):
    return mappers.run(progress=False)


@pytest.fixture(scope="module")
def result(mappers, done):
    return mappers.results(done, mappers.distances(progress=False), 0.0)


def test_both_runs_are_in_the_rows(done):
    assert done.scored == done.eligible == 5 * STORIES + 5 * CAPTIONS and not done.skipped
    counts = scores_frame(done.rows).groupby(["method", "context"]).size().to_dict()
    full = {(name, "captions5_images4"): STORIES for name in MAPPERS.learned}
    single = {(name, "single_caption"): CAPTIONS for name in ("sd", *MAPPERS.learned)}
    assert counts == full | single | {("sd", "captions5"): STORIES}


def test_the_one_table_has_the_contexts_of_both(mappers):
    table = mappers.table
    assert table.name == "mappers" and table.topic == "mappers"
    names = [context.name for context in table.all_contexts]
    assert names == ["captions5", "single_caption", "captions5_images4"]
    assert {cell[:2] for cell in table.cells([0])} == {
        cell[:2] for part in mappers.parts for cell in part.table.cells([0])
    }


def test_the_results_hold_every_cell_and_every_claim(result, done):
    assert result["table"] == "mappers" and result["settings"] == {
        "num_stories": STORIES, "num_captions": CAPTIONS, "seeds": [0], "run_seed": 0
    }  # fmt: skip
    rows = {(r["method"], r["context"], r["metric"]): r for r in result["rows"]}
    frame = scores_frame(done.rows)
    mine = frame[(frame.method == "mlp") & (frame.context == "captions5_images4")]
    row = rows["3-layer MLP", "5 captions, 4 images", "CLIP similarity ↑"]
    assert row["mean"] == pytest.approx(mine.clip_similarity.mean()) and row["paper"] == 0.502
    fids = {k[0]: r for k, r in rows.items() if k[2] == frechet.LABEL}
    assert list(fids) == list(MAPPERS.labels.values()), "single captions alone have it"
    assert {r["paper"] for r in fids.values()} == {13.94, 15.50, 15.33, 16.30, 15.31}
    assert all(r["mean"] > 0 and r["n"] == CAPTIONS for r in fids.values())
    wanted = {c.id for c in claims.read_claims() if c.table == "mappers"}
    assert {v["id"] for v in result["verdicts"]} == wanted
    assert {v["verdict"] for v in result["verdicts"]} == {claims.TOO_FEW}, "of two examples"
    assert result["provenance"]["inputs"]["captions"]["table"] == "mappers_captions"
    json.dumps(result, allow_nan=False)


def test_a_claim_on_distances_is_judged_by_them(result):
    fids = {r["method"]: r["mean"] for r in result["rows"] if r["metric"] == frechet.LABEL}
    row = next(v for v in result["verdicts"] if v["id"] == "mappers-fid-linear")
    assert row["difference"] == pytest.approx(fids["GILLMapper"] - fids["Linear"])


def test_joined_runs_add_up_their_counts():
    a = RunResult([{"key": "a"}], 3, Counter({"no picture": 2}), 1.5)
    b = RunResult([{"key": "b"}], 2, Counter({"no picture": 1}), 2.0)
    both = mapper_ablation.joined([a, b])
    assert [row["key"] for row in both.rows] == ["a", "b"]
    assert (both.scored, both.eligible, both.skipped) == (2, 5, {"no picture": 3})
    assert both.earlier_seconds == 3.5


def test_models_are_loaded_once_for_both(tmp_path, monkeypatch):
    loaded, models = [], drawers()

    def pretended(table, output_dir, num_examples, models=None, **options):
        loaded.append((table.typed, num_examples, models, options["seeds"], options["cache_dir"]))
        return Evaluation(table, None, models or given, None, (0,), {}, tmp_path)

    given = models
    monkeypatch.setattr(mapper_ablation, "prepare", pretended)
    made = mapper_ablation.prepare_both(
        tmp_path, seeds=[0], num_stories=5, num_captions=7, cache_dir=False
    )
    assert loaded == [
        ("mappers", 5, None, [0], False), ("mappers-captions", 7, models, [0], False),
    ]  # fmt: skip
    assert made.captions.models is made.stories.models


# ---- costs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joints(tmp_path_factory):
    """Tiny joints of two mappers as `gill-lite train` leaves them."""
    root, tiny = tmp_path_factory.mktemp("joints"), tiny_evaluation.backbones()
    for name, rate in (("linear", 0.01), ("gill", 0.001)):
        gill = build_gill(tiny.profile, tiny, name)
        settings = {"learning_rate": rate, "batch_size": 4}
        save_joints(gill, root / f"{name}-0", {"steps": 900, "settings": settings})
    return root


def test_costs_are_read_from_the_joints_and_timed(joints):
    tiny = tiny_evaluation.backbones(max_caption_tokens=77)
    rows = mapper_ablation.costs(
        ["linear", "gill"], tiny, MAPPERS.labels, joints_root=joints, rounds=2
    )
    assert [row["method"] for row in rows] == ["Linear", "GILLMapper"]
    assert [row["learning_rate"] for row in rows] == [0.01, 0.001]
    for row, name in zip(rows, ("linear", "gill"), strict=True):
        gill = build_gill(tiny.profile, tiny, name)
        mapper = sum(p.numel() for p in gill.mapper.parameters())
        every = sum(p.numel() for p in gill.trainable_parameters().values())
        assert (row["mapper_parameters"], row["learned_parameters"]) == (mapper, every)
        assert row["steps"] == 900 and row["batch_size"] == 4
        assert row["training_seconds"] == pytest.approx(900 * row["step_seconds"], abs=0.6)
        assert row["step_seconds"] > 0
    json.dumps(rows, allow_nan=False)


def test_costs_name_joints_that_are_missing(joints):
    with pytest.raises(GillError, match="encoder-0"):
        mapper_ablation.costs(["encoder"], None, MAPPERS.labels, joints_root=joints)


def test_timing_leaves_the_frozen_models_alone():
    tiny = tiny_evaluation.backbones(max_caption_tokens=77)
    before = {name: value.clone() for name, value in tiny.lm.state_dict().items()}
    seconds = mapper_ablation.step_seconds(["linear"], tiny, rounds=1)
    assert set(seconds) == {"linear"} and not tiny.lm.training
    assert all((before[name] == value).all() for name, value in tiny.lm.state_dict().items())


# ---- differences -----------------------------------------------------------------------------


@pytest.fixture
def frame():
    """Scores of r=1 that lie 0.1 below those of r=8 on every story, and of k=1 that are equal
    on average."""
    rng, rows = np.random.default_rng(0), []
    for context in ("captions5", "captions5_images4"):
        for story in range(40):
            score = rng.normal(0.7, 0.2)
            noise = rng.normal(0, 0.01)
            values = {"gill": score, "r1": score - 0.1 + noise, "k1": score + 3 * noise}
            rows += [{"example": str(story), "method": method, "context": context, "seed": 0,
                      "clip_similarity": value} for method, value in values.items()]  # fmt: skip
    return pd.DataFrame(rows)


def test_differences_are_paired_by_story(frame):
    rows = mapper_ablation.differences(frame, TOKENS)
    assert [(r["method"], r["context"]) for r in rows] == [
        (TOKENS.labels[m], c.label) for m in ("r1", "k1") for c in TOKENS.contexts
    ]
    wide = frame[frame.context == "captions5"].pivot(index="example", columns="method")
    scores = wide["clip_similarity"]
    expected = paired_interval(scores["r1"].to_numpy(), scores["gill"].to_numpy())
    assert (rows[0]["difference"], rows[0]["low"]) == (expected.mean, expected.low)
    assert rows[0]["n"] == 40 and rows[0]["high"] < -0.09
    alone = mean_interval(scores["r1"].to_numpy())
    assert rows[0]["high"] - rows[0]["low"] < 0.2 * (alone.high - alone.low), "pairing tells"
    json.dumps(rows, allow_nan=False)


def test_a_story_without_both_scores_is_left_out(frame):
    lost = (frame.example == "0") & (frame.method == "r1") & (frame.context == "captions5")
    rows = mapper_ablation.differences(frame[~lost], TOKENS)
    assert [row["n"] for row in rows[:2]] == [39, 40]


def test_the_frame_of_differences_keeps_the_order_of_methods_and_contexts(frame):
    shown = mapper_ablation.differences_frame(mapper_ablation.differences(frame, TOKENS))
    assert list(shown.index) == [TOKENS.labels["r1"], TOKENS.labels["k1"]]
    assert list(shown.columns) == ["5 captions", "5 captions, 4 images"]
    assert re.fullmatch(r"-0\.\d{3} \[-0\.\d{3}, -0\.\d{3}\]", shown.iloc[0, 0])
    assert mapper_ablation.differences_frame([]).empty
