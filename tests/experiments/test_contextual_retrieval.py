"""Contextual retrieval: who is ranked, where the true picture comes, and what is kept of it."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from gill_lite.answering.index import ImageIndex
from gill_lite.errors import GillError
from gill_lite.evaluation.evaluate import prepare, results
from gill_lite.evaluation.tables import TABLES
from gill_lite.evaluation.tasks import VIST_CONTEXTS
from gill_lite.experiments import contextual_retrieval
from gill_lite.model.checkpoint import joints_folder
from gill_lite.report import claims
from gill_lite.report.scores import scores_frame

STORIES, TABLE = 6, TABLES["retrieval"]


def story(*photo_ids):
    return SimpleNamespace(photo_ids=photo_ids, example_id=photo_ids[-1])


def test_the_true_picture_is_found_where_its_cosine_puts_it():
    index = ImageIndex.build(torch.eye(3), ["a", "b", "c"])
    queries = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert contextual_retrieval.ranks(index, queries, [story("x", "b"), story("x", "c")]) == [2, 3]


def test_pictures_the_story_showed_before_are_no_candidates():
    index = ImageIndex.build(torch.eye(3), ["a", "b", "c"])
    query = torch.tensor([[3.0, 2.0, 1.0]])
    assert contextual_retrieval.ranks(index, query, [story("a", "b", "c")]) == [1]
    assert contextual_retrieval.ranks(index, query, [story("c", "a", "c")]) == [2], (
        "the true one stays"
    )


def test_recall_follows_from_the_rank():
    assert contextual_retrieval.scores(5) == {
        "rank": 5, "recall_at_1": 0.0, "recall_at_5": 1.0, "recall_at_10": 1.0
    }  # fmt: skip
    assert contextual_retrieval.scores(1)["recall_at_1"] == 1.0
    assert contextual_retrieval.scores(11)["recall_at_10"] == 0.0


# ---- the table ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joints_root(tmp_path_factory):
    """Two methods that are alike: what ships for GILL, under both names."""
    root = tmp_path_factory.mktemp("joints")
    shipped = joints_folder("gill", 0)
    for method in TABLE.learned:
        (root / f"{method}-0").symlink_to(shipped, target_is_directory=True)
    return root


@pytest.fixture(scope="module")
def retrieval(tmp_path_factory, joints_root):
    folder = tmp_path_factory.mktemp("run")
    return prepare(TABLE, folder, "mini", [0], STORIES, joints_root=joints_root)


@pytest.fixture(scope="module")
def run(retrieval):
    return retrieval.run()


def test_every_method_context_and_story_has_its_row(run):
    frame = scores_frame(run.rows)
    assert set(zip(frame["method"], frame["context"])) == {
        *[("clip", context) for context in ("caption1", "captions5")],
        *[(method, context) for method in ("fromage", "gill") for context in VIST_CONTEXTS],
    }
    assert (run.scored, run.eligible) == (STORIES * 8, STORIES * 8)
    assert frame["rank"].between(1, STORIES).all()
    full = frame[(frame["method"] == "gill") & (frame["context"] == "captions5")]
    assert full["rank"].mean() < 2.5, "chance is 3.5 of 6"


@pytest.mark.parametrize(("method", "seed"), [("gill", 0), ("clip", 0)])
def test_a_picture_finds_itself_in_either_index(retrieval, method, seed):
    index = retrieval.scorer.index(method, seed)
    assert index.ids == list(retrieval.scorer.pictures)
    found = index.search(index.embeddings, k=1)
    assert [ids[0] for ids in found.ids] == index.ids


def test_a_model_retrieves_the_same_whatever_its_name(run):
    frame = scores_frame(run.rows)
    ranks = {m: part["rank"].tolist() for m, part in frame.groupby("method")}
    assert ranks["gill"] == ranks["fromage"]


def test_the_first_hit_is_what_rank_one_means(retrieval, run):
    frame = scores_frame(run.rows).set_index(["method", "context", "example"])
    for method, context, _ in TABLE.cells([0]):
        hits = retrieval.scorer.search(method, context, 0, retrieval.dataset.examples, k=3)
        for story, ids in zip(retrieval.dataset.examples, hits.ids, strict=True):
            assert len(ids) == 3
            first = frame.loc[(method, context, story.example_id), "recall_at_1"]
            assert (ids[0] == story.photo_ids[-1]) == bool(first)


def test_a_run_goes_on_where_it_stopped(retrieval, run):
    rows = retrieval.folder / "rows.jsonl"
    whole = rows.read_bytes()
    rows.write_bytes(whole[: len(whole) // 2])
    again = retrieval.run()
    assert again.rows == run.rows
    assert rows.read_bytes() == whole


def test_another_models_run_is_refused(retrieval, run):
    config = {**retrieval.config, "joints": {"gill-0": "another"}}
    other = dataclasses.replace(retrieval, config=config)
    with pytest.raises(GillError, match="other settings .joints"):
        other.run()


def test_results_have_recalls_verdicts_and_where_they_come_from(retrieval, run):
    result = results(retrieval.table, retrieval.config, run, 0.0)
    rows = {(row["method"], row["context"], row["metric"]): row for row in result["rows"]}
    assert list(dict.fromkeys(row["method"] for row in result["rows"])) == [
        "CLIP", "FROMAGe-style", "GILL"
    ]  # fmt: skip
    assert {metric for _, _, metric in rows} == {"R@1 ↑", "R@5 ↑", "R@10 ↑"}
    frame = scores_frame(run.rows)
    clip = frame[(frame["method"] == "clip") & (frame["context"] == "captions5")]
    row = rows["CLIP", "5 captions", "R@1 ↑"]
    assert (row["mean"], row["n"]) == (pytest.approx(clip["recall_at_1"].mean()), STORIES)
    assert ("CLIP", "5 captions, 4 images", "R@1 ↑") not in rows
    claimed = {claim.id for claim in claims.read_claims() if claim.table == "retrieval"}
    assert {row["id"] for row in result["verdicts"]} == claimed != set()
    assert all(row["n"] == STORIES for row in result["verdicts"]), "none is 'not run'"
    assert (result["table"], result["topic"]) == ("retrieval", "retrieval")
    assert result["settings"] == {"num_stories": STORIES, "seeds": [0], "run_seed": 0}
    assert set(result["provenance"]["inputs"]["joints"]) == {"gill-0", "fromage-0"}
    json.dumps(result, allow_nan=False)


def test_missing_joints_are_told_before_anything_is_read(tmp_path):
    with pytest.raises(GillError, match="shipped joints 'fromage' of seed 0.*no joints.saf"):
        prepare(TABLE, tmp_path, "mini", [0], 3, joints_root=tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
