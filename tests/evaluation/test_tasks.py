"""What is seen of stories and dialogues, as prompts and as texts."""

import pytest
from PIL import Image

from gill_lite.datasets.visdial import Dialogue
from gill_lite.datasets.vist import VistStory
from gill_lite.errors import GillError
from gill_lite.evaluation.tasks import (
    VISDIAL_CONTEXTS,
    VIST_CONTEXTS,
    Context,
    captions,
    visdial_prompt,
    visdial_text,
    vist_prompt,
    vist_text,
)


@pytest.fixture
def story(tmp_path):
    paths = []
    for i in range(5):
        Image.new("RGB", (10, 6), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    captions = tuple(f"sentence {i} ." for i in range(5))
    return VistStory("1", captions, tuple("01234"), tuple(paths))


def shape_of(prompt) -> list:
    return [part if isinstance(part, str) else part.getpixel((0, 0))[0] // 50 for part in prompt]


def test_vist_prompts_interleave_as_the_official_evaluation_does(story):
    assert vist_prompt(story, VIST_CONTEXTS["caption1"]) == ["sentence 4 ."]
    assert vist_prompt(story, VIST_CONTEXTS["captions5"]) == [f"sentence {i} ." for i in range(5)]
    prompt = vist_prompt(story, VIST_CONTEXTS["captions5_images4"], image_size=4)
    assert shape_of(prompt) == [
        "sentence 0 .", 0, "sentence 1 .", 1, "sentence 2 .", 2, "sentence 3 .", 3, "sentence 4 .",
    ]  # fmt: skip
    assert all(part.size == (4, 4) for part in prompt[1::2])


def test_the_picture_asked_for_is_never_shown(story):
    for context in VIST_CONTEXTS.values():
        assert 4 not in shape_of(vist_prompt(story, context))
    with pytest.raises(GillError, match="too many"):
        vist_prompt(story, Context("all", 5, 5, "all"))


def test_other_contexts_can_be_made(story):
    context = captions(3, images=2)
    assert shape_of(vist_prompt(story, context)) == [
        "sentence 2 .", 2, "sentence 3 .", 3, "sentence 4 .",
    ]  # fmt: skip
    assert vist_text(story, captions(2)) == "sentence 3 . sentence 4 ."


def test_stable_diffusion_gets_the_text(story):
    assert vist_text(story, VIST_CONTEXTS["caption1"]) == "sentence 4 ."
    assert vist_text(story, VIST_CONTEXTS["captions5"]) == " ".join(story.captions)
    with pytest.raises(GillError, match="takes no images"):
        vist_text(story, VIST_CONTEXTS["captions5_images4"])


def test_visdial_text(tmp_path):
    rounds = tuple((f"is it {i}", f"no {i}") for i in range(10))
    dialogue = Dialogue("1", 1, "never shown", rounds, tmp_path)
    assert visdial_text(dialogue, VISDIAL_CONTEXTS["rounds1"]) == "Q: is it 0?\nA: no 0"
    assert visdial_text(dialogue, VISDIAL_CONTEXTS["rounds5"]).count("\n") == 9
    whole = visdial_text(dialogue, VISDIAL_CONTEXTS["rounds10"])
    assert whole.endswith("A: no 9") and "never shown" not in whole


def test_gill_sees_a_dialogue_as_one_text_without_a_picture(tmp_path):
    rounds = tuple((f"is it {i}", f"no {i}") for i in range(10))
    dialogue = Dialogue("1", 1, "never shown", rounds, tmp_path)
    for context in VISDIAL_CONTEXTS.values():
        assert visdial_prompt(dialogue, context, 64) == [visdial_text(dialogue, context)]
