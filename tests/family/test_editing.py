"""Chains of edits: what a turn changes and keeps, who is given what, and how it is judged."""

import pytest
import torch

from gill_lite.answering.drawing import from_pil
from gill_lite.evaluation.run import run_resumable
from gill_lite.family import SYSTEMS, editing
from gill_lite.family.editing import TURNS, WAYS, Talker, Talkers, chains
from gill_lite.family.table import Family, items_of
from gill_lite.model.backbones import load_backbones
from gill_lite.profiles import MINI
from gill_lite.world.render import render
from gill_lite.world.scene import ATTRIBUTES, is_novel, rng_for


@pytest.fixture(scope="module")
def family():
    systems = [SYSTEMS["gill"], SYSTEMS["sd"]]
    return Family(systems, [0], backbones=load_backbones(MINI))


class Draughtsman:
    """Draws scenes as they are told to it, and keeps what it was asked."""

    def __init__(self, backbones, wrong: dict | None = None):
        self.backbones, self.wrong = backbones, wrong or {}

    def way(self, member, some, turn, last):
        pictures = [render(c.turns[turn].scene.change(**self.wrong), rng_for(turn)) for c in some]
        return torch.stack([from_pil(picture) for picture in pictures])


def test_each_turn_changes_one_thing_and_undo_brings_the_first_back():
    for chain in chains(20):
        scenes = [turn.scene for turn in chain.turns]
        assert len(scenes) == len(TURNS) and not any(map(is_novel, scenes))
        for before, after, turn in zip(scenes, scenes[1:], chain.turns[1:]):
            differ = [n for n in ATTRIBUTES if getattr(before, n) != getattr(after, n)]
            assert differ == [turn.changed] and getattr(after, turn.changed) in turn.said
        assert scenes[2] == scenes[0] != scenes[1]
    assert chains(3) == chains(5)[:3]


def test_the_words_are_the_language_models_own(family):
    tokenizer = family.backbones.tokenizer
    for chain in chains(20):
        assert tokenizer.unk_token_id not in tokenizer(" ".join(chain.said(6)))["input_ids"]


@pytest.mark.parametrize("name", WAYS)
def test_every_way_draws_every_turn(family, name):
    talkers, some = Talkers(family), chains(2)
    pictures = talkers[name, 0].talk(some)
    assert [p.shape for p in pictures] == [(2, 3, 64, 64)] * len(TURNS)
    assert all(0 <= p.min() and p.max() <= 1 for p in pictures)


def test_a_weaker_image_to_image_stays_nearer(family):
    some, talkers = chains(4), Talkers(family)
    moved = []
    for strength in (0.4, 0.8):
        pictures = talkers[f"img2img_{round(100 * strength)}", 0].talk(some)
        moved.append((pictures[1] - pictures[0]).abs().mean())
    assert moved[0] < moved[1]


def test_gill_is_shown_its_last_picture_before_the_newest_sentence(family):
    asked = []

    class Spy:
        def draw(self, prompts, seeds):
            asked.append(prompts)
            return torch.zeros(len(prompts), 3, 64, 64)

    some = chains(1)
    Talker(Spy(), WAYS["gill_picture"]).talk(some)
    assert asked[0] == [some[0].said(0)]
    *words, picture, newest = asked[3][0]
    assert [*words, newest] == some[0].said(3) and picture.size == (64, 64)


def test_what_is_right_counts_as_changed_and_kept(family):
    some = chains(6)

    def scored(**wrong):
        painter = Draughtsman(family.backbones, wrong)
        return editing.score(Talker(painter, editing.Way("", "", painter.way)), some, some)

    for row in scored():
        assert row["made"] == pytest.approx(1, abs=0.2)
        assert row["kept"] == pytest.approx(1, abs=0.1)
        assert row["whole"] == pytest.approx(1, abs=0.1)
    for row, chain in zip(scored(place="snow"), some, strict=True):
        right = chain.turns[0].scene.place == "snow"
        assert row["whole_move"] == pytest.approx(1 if right else 5 / 6, abs=0.01)
        assert row["kept_move"] == 1, "a thing that was never right is kept, too"
    for row, chain in zip(scored(time="day"), some, strict=True):
        assert row["made_time of day"] == float(chain.turns[5].scene.time == "day")


def test_a_turn_is_judged_by_the_scene_asked_for_and_by_the_picture_before():
    chain = chains(1)[0]
    asked = [turn.scene for turn in chain.turns]
    assert editing.turn_marks(0, chain, asked) == {"whole_draw": 1.0}
    assert editing.turn_marks(1, chain, asked) == {
        "whole_recolour": 1.0, "kept_recolour": 1.0, "made_recolour": 1.0
    }  # fmt: skip
    deaf = [asked[0]] * len(TURNS)  # draws the first sentence again and again
    assert editing.turn_marks(1, chain, deaf) == {
        "whole_recolour": pytest.approx(5 / 6), "kept_recolour": 1.0, "made_recolour": 0.0
    }  # fmt: skip
    assert "made_undo" not in editing.turn_marks(2, chain, deaf), "there was nothing to undo"
    moved = asked[3].change(place=next(p for p in ATTRIBUTES["place"] if p != asked[3].place))
    assert editing.turn_marks(3, chain, [*asked[:3], moved])["kept_resize"] == 0.8
    never_right = [scene.change(place=moved.place) for scene in asked]
    assert editing.turn_marks(3, chain, never_right)["kept_resize"] == 1.0


def test_ways_are_scored_as_a_table(family, tmp_path):
    talkers, some = Talkers(family), chains(2)
    items = items_of(talkers, {"turns": some})
    assert {item.method for item in items} == set(WAYS)
    seen = run_resumable(
        items[:2],
        lambda batch: editing.score(talkers[batch[0].method, 0], some, some),
        tmp_path,
        {"a": 1},
        progress=False,
    )
    assert seen.scored == 2
