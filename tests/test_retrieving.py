"""Contextual retrieval: who is ranked, where the true picture comes, and what is kept of it."""

from types import SimpleNamespace

import pytest
import torch

from gill_lite.errors import GillError
from gill_lite.evaluate import retrieving
from gill_lite.evaluate.tasks import VIST, of_world
from gill_lite.respond import load_responder
from gill_lite.retrieval import ImageIndex

STORIES = 6


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    return of_world(VIST, tmp_path_factory.mktemp("world") / "vist", STORIES).examples


def story(*photo_ids):
    return SimpleNamespace(photo_ids=photo_ids, example_id=photo_ids[-1])


def test_the_true_picture_is_found_where_its_cosine_puts_it():
    index = ImageIndex.build(torch.eye(3), ["a", "b", "c"])
    queries = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert retrieving.ranks(index, queries, [story("x", "b"), story("x", "c")]) == [2, 3]


def test_pictures_the_story_showed_before_are_no_candidates():
    index = ImageIndex.build(torch.eye(3), ["a", "b", "c"])
    query = torch.tensor([[3.0, 2.0, 1.0]])
    assert retrieving.ranks(index, query, [story("a", "b", "c")]) == [1]
    assert retrieving.ranks(index, query, [story("c", "a", "c")]) == [2], "the true one stays"


def test_recall_follows_from_the_rank_and_lost_ranks_are_told():
    (row,) = retrieving.score_rows("gill", "captions5", 0, [story("s")], [5])
    assert (row["recall_at_1"], row["recall_at_5"], row["recall_at_10"]) == (0.0, 1.0, 1.0)
    with pytest.raises(GillError, match="2 ranks were given for 1 stories"):
        retrieving.score_rows("gill", "captions5", 0, [story("s")], [1, 2])


def test_every_method_context_and_story_has_its_row(stories):
    responder = load_responder("mini", 0)
    rows = retrieving.compute({"gill": {0: responder}}, stories)
    cells = {(row["method"], row["context"]) for row in rows}
    assert cells == {
        *[("clip", context) for context in ("caption1", "captions5")],
        *[("gill", context) for context in ("caption1", "captions5", "captions5_images4")],
    }
    assert len(rows) == STORIES * len(cells)
    assert all(1 <= row["rank"] <= STORIES for row in rows)
    full = [r["rank"] for r in rows if (r["method"], r["context"]) == ("gill", "captions5")]
    assert sum(full) / STORIES < 2.5, "chance is 3.5 of 6"


def test_a_picture_finds_itself_in_either_index(stories):
    responder = load_responder("mini", 0)
    pictures = retrieving.last_pictures(stories)
    for make in (retrieving.gill_index, retrieving.clip_index):
        index = make(responder, pictures)
        assert index.ids == list(pictures)
        found = index.search(index.embeddings, k=1)
        assert [ids[0] for ids in found.ids] == index.ids
