"""Stale pictures: which attributes they show wrong, and what images are worth for each kind."""

from types import SimpleNamespace

import pandas as pd
import pytest

from gill_lite.errors import GillError
from gill_lite.evaluation.tables import TABLES
from gill_lite.evaluation.tasks import VIST, VIST_CONTEXTS, captions, of_world, vist_prompt
from gill_lite.experiments import stale_pictures
from gill_lite.world.language import story
from gill_lite.world.scene import ATTRIBUTES, Scene, rng_for

FIVE, FULL = VIST_CONTEXTS["captions5"], VIST_CONTEXTS["captions5_images4"]
TWO = captions(2, images=1)
ONE_PICTURE = TABLES["one-picture"]
FIRST = Scene("ball", "red", "small", "left", "beach", "day")
BLUE = FIRST.change(color="blue")
MOVED = BLUE.change(position="right")
SCENES = {"p0": FIRST, "p1": BLUE, "p2": BLUE, "p3": BLUE, "p4": MOVED}
STORY = SimpleNamespace(
    example_id="s",
    captions=["a red ball on the left at the beach .", "it turned blue .", "it waited .",
              "the blue ball smiled .", "it moved to the right ."],
    photo_ids=list(SCENES),
)  # fmt: skip


@pytest.mark.parametrize(
    ("attribute", "full", "two"),
    [
        ("size", "untold", "untold"),
        ("place", "steady", "untold"),  # the last two captions don't name the beach
        ("color", "earlier", "steady"),
        ("position", "last", "last"),
    ],
)
def test_an_attribute_is_of_the_kind_that_words_and_pictures_make_it(attribute, full, two):
    assert stale_pictures.kind(STORY, SCENES, attribute, FULL) == full
    assert stale_pictures.kind(STORY, SCENES, attribute, TWO) == two


def test_stale_pictures_are_those_shown_that_show_another_value():
    stale = stale_pictures.stale_pictures
    assert stale(STORY, SCENES, "color", FULL) == [True, False, False, False]
    assert stale(STORY, SCENES, "position", FULL) == [True] * 4
    assert stale(STORY, SCENES, "position", TWO) == [True]
    assert stale(STORY, SCENES, "color", TWO) == [False], "the first picture is not shown"
    assert stale(STORY, SCENES, "shape", FULL) == [False] * 4


def test_without_a_picture_nothing_can_be_stale():
    with pytest.raises(GillError, match="'captions5' shows no picture"):
        stale_pictures.kind(STORY, SCENES, "size", FIVE)


@pytest.mark.parametrize("context", [TWO, FULL], ids=lambda context: context.name)
def test_what_no_word_tells_no_picture_shows_wrong(context):
    for number in range(200):
        made = story(rng_for("staleness", number))
        ids = [f"{number}_{i}" for i in range(len(made.scenes))]
        scenes = dict(zip(ids, made.scenes, strict=True))
        told = SimpleNamespace(captions=made.captions, photo_ids=ids)
        for name in ATTRIBUTES:
            if stale_pictures.kind(told, scenes, name, context) == "untold":
                assert not any(stale_pictures.stale_pictures(told, scenes, name, context))


def scores(without: float, pictured: dict[str, float]) -> pd.DataFrame:
    """Two seeds of one story: `without` everywhere, and with images what `pictured` says."""
    rows = []
    for context, values in ((FIVE, {}), (FULL, pictured)):
        for seed in (0, 1):
            right = {f"right_{name}": values.get(name, without) for name in ATTRIBUTES}
            rows.append({"example": "s", "method": "gill", "context": context.name, "seed": seed}
                        | right)  # fmt: skip
    return pd.DataFrame(rows)


def test_a_case_has_a_row_a_seed_and_its_difference_is_paired():
    frame = scores(0.0, {"size": 1.0, "position": 0.0})
    frame.loc[frame.index[-1], "right_color"] = 1.0  # one of the two seeds
    found = stale_pictures.cases([STORY], SCENES, frame, FIVE, FULL)
    found = found.set_index(["attribute", "seed"])
    assert len(found) == 2 * len(ATTRIBUTES)
    for seed in (0, 1):
        size, color, position = (found.loc[(n, seed)] for n in ("size", "color", "position"))
        assert size[["kind", "stale", "difference"]].tolist() == ["untold", 0, 1.0]
        assert color[["kind", "stale", "pictured"]].tolist() == ["earlier", 1, float(seed)]
        assert position[["kind", "stale", "difference"]].tolist() == ["last", 4, 0.0]


def test_stories_without_scores_are_left_out_and_missing_cells_told():
    other = SimpleNamespace(example_id="t", captions=STORY.captions, photo_ids=STORY.photo_ids)
    frame = scores(1.0, {})
    assert set(stale_pictures.cases([STORY, other], SCENES, frame, FIVE, FULL)["example"]) == {"s"}
    with pytest.raises(GillError, match="no cell gill/captions2_images1"):
        stale_pictures.cases([STORY], SCENES, frame, FIVE, TWO)


def test_rows_average_stories_and_pair_their_differences():
    found = pd.DataFrame(
        [("a", "size", "untold", 0, 0.0, 1.0), ("a", "time", "untold", 0, 0.0, 0.0),
         ("b", "size", "untold", 0, 0.0, 1.0), ("b", "time", "last", 4, 1.0, 0.0)],
        columns=["example", "attribute", "kind", "stale", "without", "pictured"],
    )  # fmt: skip
    found["difference"] = found["pictured"] - found["without"]
    found = pd.concat([found.assign(seed=seed) for seed in (0, 1)])
    untold, last, size, *_ = stale_pictures.kind_rows(found)
    assert (untold["attribute"], untold["kind"], untold["cases"]) == ("all", "untold", 3)
    assert untold["share"] == 0.75
    assert untold["mean"] == pytest.approx(0.75), "story a's mean is 0.5, story b's 1"
    assert (untold["n"], last["n"], last["mean"], last["low"]) == (2, 1, -1.0, None)
    assert (size["attribute"], size["mean"], size["share"]) == ("size", 1.0, 1.0)
    assert untold["adds"] + last["adds"] == pytest.approx(found["difference"].mean())
    assert (untold["adds"], last["adds"]) == (pytest.approx(0.5), -0.25)
    apart = found.assign(difference=found["difference"] * found["seed"])
    one, *_ = stale_pictures.kind_rows(apart)
    assert untold["seeds"] == 2 and one["high"] - one["low"] > untold["high"] - untold["low"]
    shown = stale_pictures.kinds_frame([untold])
    assert shown.index[0] == ("all", "only the pictures tell it")
    assert shown["cases"].iloc[0] == "3 (75%)"
    assert shown["difference"].iloc[0].startswith("0.750 [")


def test_what_words_tell_is_counted_by_its_stale_pictures():
    found = pd.DataFrame(
        [("a", "steady", 0, 1.0, 0.5), ("b", "steady", 0, 1.0, 1.0), ("a", "untold", 0, 0.0, 0.0),
         ("a", "last", 4, 1.0, 0.0)],
        columns=["example", "kind", "stale", "without", "pictured"],
    )  # fmt: skip
    none, four = stale_pictures.by_count(found.assign(seed=0))
    assert (none["stale"], none["cases"], none["without"]["mean"]) == (0, 2, 1.0)
    assert (none["pictured"]["mean"], none["pictured"]["n"]) == (0.75, 2)
    assert (four["stale"], four["cases"], four["pictured"]["mean"]) == (4, 1, 0.0)


# ---- one picture instead of four ---------------------------------------------------------


def test_one_picture_stands_behind_its_own_caption(tmp_path):
    story = of_world(VIST, tmp_path / "vist", 1).examples[0]
    said = list(story.captions)
    pictures = vist_prompt(story, FULL)[1::2]
    for context in ONE_PICTURE.contexts:
        prompt = ONE_PICTURE.task.prompt(story, context)
        assert [part for part in prompt if isinstance(part, str)] == said
        assert prompt[context.panel - 1] == said[context.panel - 1]
        shown = prompt[context.panel]
        assert shown.tobytes() == pictures[context.panel - 1].tobytes()
    assert [context.panel for context in ONE_PICTURE.contexts] == [1, 4]


def test_one_picture_is_compared_with_the_same_seed_and_captions():
    frame = scores(0.0, {"size": 1.0}).assign(clip_similarity=0.2)
    frame.loc[frame["seed"] == 1, "right_size"] = 0.5  # a seed that the experiment does not have
    one, four = (scores(1.0, {})[2:3].assign(context=c.name, clip_similarity=0.6)
                 for c in ONE_PICTURE.contexts)  # fmt: skip
    first, last, full = stale_pictures.one_picture_results(
        [STORY], SCENES, frame, pd.concat([one, four.assign(right_position=0.0)])
    )
    assert [x["context"] for x in (first, last, full)] == [
        "5 captions, image 1 alone", "5 captions, image 4 alone", "5 captions, 4 images"
    ]  # fmt: skip
    assert first["clip_similarity"]["mean"] == pytest.approx(0.4)
    assert full["clip_similarity"]["mean"] == pytest.approx(0.0)
    means = [{row["kind"]: row["mean"] for row in x["rows"]} for x in (first, last, full)]
    assert means[0]["last"] == 1.0 and means[1]["last"] == 0.0
    assert means[2] == {"untold": 0.5, "steady": 0.0, "earlier": 0.0, "last": 0.0}, (
        "of what no word tells, size and time, seed 0 has the size right"
    )
    shown = stale_pictures.one_picture_frame([first, full])
    assert shown.loc["CLIP similarity, all stories", "5 captions, image 1 alone"].startswith(
        "0.400"
    )
    assert list(shown.index)[:4] == list(stale_pictures.KINDS.values())
