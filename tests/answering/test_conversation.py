"""Conversations: taken back, edited, saved, loaded, replayed; what goes back into the prompt."""

import json

import pytest
import torch
from PIL import Image

from gill_lite import Conversation
from gill_lite.answering.answers import Response, ShownPicture
from gill_lite.answering.gallery import Gallery
from gill_lite.answering.index import ImageIndex
from gill_lite.answering.respond import Responder
from gill_lite.errors import GillError
from gill_lite.model.gill import build_gill
from tests.helpers import tiny_evaluation

OPTIONS = {"max_words": 4, "force_image": True}


@pytest.fixture(scope="module")
def responder():
    """A tiny model of 256 positions, with nine pictures to retrieve."""
    tiny = tiny_evaluation.backbones()
    tiny.pipeline.set_progress_bar_config(disable=True)
    numbers = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    pictures = {str(n): picture(20 * n) for n in range(9)}
    gallery = Gallery(ImageIndex.build(numbers, pictures), pictures)
    return Responder(tiny, build_gill(tiny.profile, tiny), gallery)


@pytest.fixture
def prompts(responder, monkeypatch):
    """The prompts that the responder is given, in their order."""
    given, respond = [], responder.respond

    def spied(prompt, *args, **options):
        given.append(prompt)
        return respond(prompt, *args, **options)

    monkeypatch.setattr(responder, "respond", spied)
    return given


def picture(level: int = 90) -> Image.Image:
    return Image.new("RGB", (20, 16), (level, 90, 250 - level))


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def talk(responder, **settings) -> Conversation:
    conversation = Conversation(responder, **{**OPTIONS, **settings})
    conversation.say("a red ball", picture(), num_generated=2)
    conversation.say("it turned blue", temperature=1.0, run_seed=5)
    conversation.say(picture(7))
    return conversation


def test_all_that_was_said_is_the_prompt_and_shown_pictures_only_if_asked_for(responder, prompts):
    conversation = talk(responder)
    first, second = (turn.answer for turn in conversation.turns[:2])
    texts = [[item for item in answer if isinstance(item, str)] for answer in (first, second)]
    assert prompts[2] == [
        "a red ball",
        picture(),
        *texts[0],
        "it turned blue",
        *texts[1],
        picture(7),
    ]
    shown = [getattr(item, "image", item) for item in first]
    conversation.edit(1, "it turned blue", own_pictures=True)
    assert prompts[3] == ["a red ball", picture(), *shown, "it turned blue"]
    assert len(conversation.turns) == 2


def test_no_picture_is_retrieved_twice(responder):
    conversation = Conversation(responder, num_retrieved=3, draw=False, **OPTIONS)
    for _ in range(3):
        conversation.say("a red ball")
    ids = [one.id for turn in conversation.turns for one in turn.answer.first.retrieved]
    assert len(ids) == len(set(ids)) == 9
    assert conversation.say("a red ball").first.retrieved == (), "all were shown"


def test_undo_and_edit_go_back_to_what_was(responder, tmp_path):
    conversation, shorter = talk(responder), talk(responder)
    shorter.undo()
    shorter.save(tmp_path / "shorter")
    assert conversation.edit(1, "a box") is conversation.turns[-1].answer
    assert conversation.turns[1].settings["run_seed"] == 5, "the turn keeps its settings"
    conversation.undo()
    conversation.say("it turned blue", temperature=1.0, run_seed=5)
    conversation.save(tmp_path / "edited")
    assert contents(tmp_path / "edited") == contents(tmp_path / "shorter")
    with pytest.raises(GillError, match="there is no turn 2; there are 2"):
        conversation.edit(2, "a box")
    with pytest.raises(GillError, match="no turn to take back"):
        Conversation(responder).undo()


@pytest.mark.parametrize("own_pictures", [False, True])
def test_saved_loaded_and_replayed_it_is_the_same_to_the_byte(responder, tmp_path, own_pictures):
    conversation = talk(responder, own_pictures=own_pictures)
    path = conversation.save(tmp_path / "one")
    loaded = Conversation.load(tmp_path / "one", responder)
    loaded.save(tmp_path / "two")
    loaded.replay().save(tmp_path / "three")
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two") == contents(tmp_path / "three")
    assert path.name == "conversation.json" and "turn01_said2.png" in one
    assert sum(name.endswith(".png") for name in one) == 2 + 3 + 4, "said, retrieved, drawn"
    for talked in (conversation, loaded):  # both go on alike
        talked.say("a box")
        talked.save(tmp_path / f"on {talked is loaded}")
    assert contents(tmp_path / "on True") == contents(tmp_path / "on False")


def test_the_context_is_cut_at_whole_turns_and_the_turn_says_so(responder, prompts):
    conversation = Conversation(responder, max_words=4)
    long = "a red ball on the left " * 15  # 90 of 256 positions
    conversation.say(long)
    conversation.say("a box", long)
    assert conversation.turns[-1].left_out == 0
    conversation.say("it turned blue", long)
    assert conversation.turns[-1].left_out == 1
    assert prompts[-1][:2] == ["a box", long], "the second turn is whole"
    replayed = conversation.replay()
    assert [turn.left_out for turn in replayed.turns] == [0, 0, 1]
    with pytest.raises(GillError, match="shorten the prompt"):
        conversation.say(long * 3)
    assert len(conversation.turns) == 3


def test_a_model_without_an_end_of_positions_leaves_nothing_out(responder, prompts, monkeypatch):
    monkeypatch.delattr(responder.gill.lm.config, "max_position_embeddings")
    conversation = Conversation(responder, max_words=2)
    for _ in range(2):
        conversation.say("a red ball " * 30)
    assert conversation.turns[-1].left_out == 0


@pytest.mark.parametrize(
    ("items", "settings", "sentence"),
    [
        ([], {}, "the prompt is empty"),
        ([" "], {}, "item 0 of the prompt is an empty text"),
        (["a ball"], {"max_word": 2}, "did you mean 'max_words'"),
        (["a ball"], {"num_generated": 0}, "num_generated must be at least 1"),
    ],
)
def test_what_cannot_be_answered_leaves_the_conversation_as_it_was(
    responder, items, settings, sentence
):
    conversation = Conversation(responder, **OPTIONS)
    conversation.say("a red ball")
    before = list(conversation.turns)
    for attempt in (conversation.say, lambda *a, **o: conversation.edit(0, *a, **o)):
        with pytest.raises(GillError, match=sentence):
            attempt(*items, **settings)
        assert conversation.turns == before
    with pytest.raises(GillError, match="did you mean 'max_words'"):
        Conversation(responder, max_word=2)


def test_a_conversation_from_a_file_is_checked(responder, tmp_path):
    with pytest.raises(GillError, match="conversation .*conversation.json is missing"):
        Conversation.load(tmp_path, responder)
    talk(responder).save(tmp_path)
    good = json.loads((tmp_path / "conversation.json").read_text())

    def refused(change, sentence):
        record = json.loads(json.dumps(good))
        change(record)
        (tmp_path / "conversation.json").write_text(json.dumps(record))
        with pytest.raises(GillError, match=sentence):
            Conversation.load(tmp_path, responder)

    turn = lambda record: record["turns"][0]  # noqa: E731
    refused(lambda r: r.pop("turns"), "is no conversation .KeyError: 'turns'.; save it anew")
    refused(lambda r: turn(r).pop("said"), "is no conversation .KeyError: 'said'")
    refused(lambda r: turn(r).update(said=[3]), "is no conversation .TypeError")
    refused(lambda r: turn(r)["settings"].update(max_words=-1), "max_words must be at least 0")
    refused(lambda r: turn(r)["settings"].update(evil=1), "an answer has no setting 'evil'")
    for name in ("../secret.png", "/etc/passwd", "sub/x.png"):
        place = {"picture": name}
        refused(lambda r, place=place: turn(r).update(said=[place]), "must lie beside the file")
    refused(lambda r: turn(r).update(said=[{"picture": "no.png"}]), "image .*no.png is missing")


def test_an_answer_of_pictures_alone_has_no_words(responder):
    shown = ShownPicture()
    answer = Response([shown])
    assert answer.text == "" and answer.pictures == [shown] and answer.generated is None
