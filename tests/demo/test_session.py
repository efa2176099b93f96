"""What a talk of the page has, without a browser: limits, files, words, what is shown."""

import json
from html.parser import HTMLParser

import pytest
from PIL import Image

from gill_lite.answering.conversation import Conversation
from gill_lite.answering.respond import load_responder
from gill_lite.demo import session, showing
from gill_lite.demo.examples import ALL, BALL, drawn
from gill_lite.demo.reading import read_by_img
from gill_lite.errors import GillError
from gill_lite.world.probes import load_probes
from gill_lite.world.scene import is_novel

HOW = {"run_seed": 0, "own_pictures": False, "ret_scale_factor": 3.0}
HOSTILE = "<img src=x onerror=alert(1)> & <b>"


@pytest.fixture(scope="module")
def responder():
    return load_responder("mini", 0)


@pytest.fixture
def talk(responder):
    return Conversation(responder)


def say(talk, *said, **how) -> list[list]:
    return list(session.answer(talk, list(said), {**HOW, **how}))


def test_an_answer_grows_word_by_word_and_its_picture_step_by_step(talk):
    grown = say(talk, "a big red ball at the beach .")
    (turn,) = talk.turns
    pictures = [p for pieces in grown for p in pieces if isinstance(p, Image.Image)]
    assert pictures, "a slow reader may miss steps, but not the last one told"
    assert pictures[-1].size == turn.answer.generated.size
    places = [[isinstance(p, str) for p in pieces] for pieces in grown]
    assert places[-1] == [isinstance(item, str) for item in turn.answer]


def test_who_leaves_early_leaves_the_conversation_as_it_was(talk):
    say(talk, "a red ball .")
    answer = session.answer(talk, ["it is night ."], HOW)
    next(answer)
    answer.close()
    assert len(talk.turns) == 1
    again = session.answer(talk, ["a blue ball ."], HOW, place=0)
    next(again)
    again.close()
    assert [turn.said for turn in talk.turns] == [["a red ball ."]]


def test_an_answer_is_varied_in_its_place(talk):
    say(talk, "a red ball .")
    first = talk.turns[0].answer.generated
    list(session.answer(talk, ["a red ball ."], {**HOW, "run_seed": 1}, place=0))
    assert len(talk.turns) == 1 and talk.turns[0].answer.generated != first


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ([], "the message is empty"),
        (["a" * 601], "601 letters; at most 600"),
        ([drawn(BALL)] * 5, "5 pictures; send 4 at most"),
    ],
)
def test_a_message_beyond_the_limits_is_one_sentence(talk, said, sentence):
    with pytest.raises(GillError, match=sentence):
        say(talk, *said)
    assert talk.turns == []


def test_a_conversation_ends_with_a_sentence(talk, monkeypatch):
    monkeypatch.setattr(session, "MAX_TURNS", 1)
    say(talk, "a red ball .")
    with pytest.raises(GillError, match="at most 1 turns"):
        say(talk, "a blue ball .")


def test_pictures_are_read_within_limits(monkeypatch):
    large = session.png(Image.new("RGB", (1200, 600)))
    assert session.read_picture(large, "large.png").size == (512, 256)
    with pytest.raises(GillError, match="the picture page.png is a web page"):
        session.read_picture(b"<!doctype html><script>alert(1)</script>", "page.png")
    with pytest.raises(GillError, match="the picture cut.png is damaged or cut off"):
        session.read_picture(large[: len(large) // 2], "cut.png")
    monkeypatch.setattr(session, "MAX_PIXELS", 1000)
    with pytest.raises(GillError, match="1200x600 pixels, at most 1,000"):
        session.read_picture(large, "large.png")


def test_unknown_words_are_underlined(responder):
    tokenizer = responder.backbones.tokenizer
    html = showing.underlined(tokenizer, "A red Dragon <b> .")
    assert "A red <u>Dragon</u> " in html and "<b>" not in html
    assert showing.underlined(tokenizer, "a ball .") == ""


def test_a_file_gives_the_conversation_back(talk, responder):
    say(talk, "a red ball .", drawn(BALL))
    say(talk, "it is night .", num_generated=2)
    text = session.as_json(talk)
    read = session.of_json(text.encode(), responder)
    assert session.as_json(read) == text
    assert [turn.said[0] for turn in read.turns] == ["a red ball .", "it is night ."]


@pytest.mark.parametrize("change", ["", "[]", "{}", "no", "[" * 100_000])
def test_another_file_is_one_sentence(responder, change):
    with pytest.raises(GillError, match="no conversation that was saved on this page$"):
        session.of_json(change.encode(), responder)


def test_a_file_can_neither_read_files_nor_hold_too_much(talk, responder, monkeypatch):
    say(talk, drawn(BALL))
    record = json.loads(session.as_json(talk))
    record["turns"][0]["said"][0]["picture"] = "/etc/passwd"
    with pytest.raises(GillError, match="no conversation"):
        session.of_json(json.dumps(record).encode(), responder)
    text = session.as_json(talk).encode()
    monkeypatch.setattr(session, "MAX_WORDS_SAVED", 10)
    with pytest.raises(GillError, match="too long"):
        session.of_json(text, responder)


class Tags(HTMLParser):
    """Every tag and every alternative text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.alts = set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.alts += [value for name, value in attrs if name == "alt"]


def test_what_is_shown_is_escaped_and_told_to_those_who_do_not_see(talk, responder):
    say(talk, HOSTILE, drawn(BALL), num_generated=2, num_retrieved=2)
    told, (turn,) = showing.Showing(load_probes()), talk.turns
    you, gill = told.said(turn.said), told.answered(turn)
    assert showing.escape(HOSTILE) in you
    assert Tags(you).tags | Tags(gill).tags <= {
        *("p", "figure", "img", "figcaption", "br", "b", "span", "details", "summary")
    }
    assert Tags(you).alts == ["Your picture: a big red ball on the left at the beach by day"]
    alts = [alt.split(": a ")[0] for alt in Tags(gill).alts]
    assert sorted(alts) == 2 * ["A generated picture"] + 2 * ["A retrieved picture"]
    assert showing.OTHERS[turn.answer.decision] in gill


def test_the_whole_conversation_is_one_picture(talk):
    say(talk, "a red ball . " * 30, drawn(BALL))
    one = showing.as_picture(talk.turns)
    say(talk, "it is night .")
    two = showing.as_picture(talk.turns)
    assert one.width == two.width and two.height > one.height > 400


def test_what_img_reads_is_shared_among_words_and_pictures(talk, responder):
    say(talk, "a red ball .")
    say(talk, "it is in the", drawn(BALL))
    prompt = session.before_picture(talk.turns)
    read = read_by_img(responder, prompt)
    assert sum(one.share for one in read) == pytest.approx(1, abs=1e-5)
    assert [one.item for one in read][:4] == ["a", "red", "ball", "."]
    assert sum(isinstance(one.item, Image.Image) for one in read) == 1
    assert responder.backbones.lm.config._attn_implementation == "sdpa"
    assert Tags(showing.heat(read)).tags == {"p", "span", "img"}


def test_examples_are_many_and_within_the_limits():
    assert len(ALL) >= 6 and len({example.title for example in ALL}) == len(ALL)
    for example in ALL:
        for said in example.said():
            session.check(said)
    assert not is_novel(BALL)
