"""`gill-lite chat`: a conversation kept in a folder, its options, and what it says of pictures."""

import json
from dataclasses import fields

import pytest
import torch
from PIL import Image

from gill_lite.answering import respond
from gill_lite.answering.answers import Settings
from gill_lite.answering.conversation import Conversation
from gill_lite.answering.decision import LinearDecision
from gill_lite.answering.gallery import Gallery
from gill_lite.answering.index import ImageIndex
from gill_lite.answering.respond import Responder
from gill_lite.cli import chat as cli_chat
from gill_lite.cli import main as cli
from gill_lite.cli.options import add_placement
from gill_lite.model.backbones import DTYPES, QUANTIZE
from gill_lite.model.gill import build_gill
from tests.helpers import tiny_evaluation


@pytest.fixture
def chat(monkeypatch, tmp_path, capsys):
    """`chat(typed, lines)` is `gill-lite chat` on a tiny model; its status, output and errors.

    `chat.loaded` lists how the model was asked for.
    """
    tiny = tiny_evaluation.backbones()
    tiny.pipeline.set_progress_bar_config(disable=True)
    pictures = {name: Image.new("RGB", (16, 16), name) for name in ("red", "blue", "green")}
    index = ImageIndex.build(torch.randn(4, 6), [*pictures, "http://127.0.0.1:9/gone.png"])
    decision = LinearDecision(torch.zeros(2, 16), [0.0, 1.0])  # retrieves, at 0.73
    gallery = Gallery(index, pictures)
    responder = Responder(tiny, build_gill(tiny.profile, tiny), gallery, decision)

    def load_responder(*args, **options):
        run.loaded.append((*args, options))
        return responder

    def run(typed="", lines=()):
        said = iter([*lines, ""])
        monkeypatch.setattr("builtins.input", lambda _: next(said))
        status = cli.main(["chat", *typed.split("|"), "-o", str(tmp_path / "out")])
        return status, *capsys.readouterr()

    run.loaded = []
    monkeypatch.setattr(respond, "load_responder", load_responder)
    monkeypatch.setattr(run, "folder", tmp_path / "out", raising=False)
    return run


def turns(folder) -> list[dict]:
    return json.loads((folder / "conversation.json").read_text())["turns"]


def test_messages_are_answered_once_as_one_turn(chat, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    status, out, err = chat(f"--force-image|look|@{tmp_path / 'x.png'}|a red ball")
    assert (status, err, len(turns(chat.folder))) == (0, "", 1)
    assert [list(item) for item in turns(chat.folder)[0]["said"]] == [
        ["text"],
        ["picture"],
        ["text"],
    ]
    assert chat.loaded[0][:3] == ("mini", 0, None)


def test_a_picture_is_told_with_why_it_is_shown_and_where_it_lies(chat):
    _, out, _ = chat("--force-image|--max-words=1|--min-words=1|--num-retrieved=3|a red ball")
    lines = out.splitlines()
    assert lines[0] == "picture, asked for: retrieved"
    assert lines[1] == "  decision: generate 0.27, retrieve 0.73"
    assert [line.split(":")[0].strip() for line in lines[2:6]] == ["retrieved"] * 3 + ["generated"]
    for line in lines[2:6]:
        path, cosine = line.split(": ")[1].split(", cosine ")
        assert Image.open(path).size == (16, 16) and -1 <= float(cosine) <= 1
    passed = [line for line in lines if "passed over" in line]
    assert passed in ([], [f"  passed over: 1 that could not be opened, the first is {GONE}"])
    assert chat("--max-words=0|a red ball")[1] == "(no words and no picture)\n"


GONE = "http://127.0.0.1:9/gone.png"


def test_lines_make_a_conversation_that_can_be_taken_back_and_gone_on_with(chat):
    lines = ["a red ball", "@gone.png", "/undo", "/undo", "a blue box", "it turned red"]
    status, out, err = chat("--max-words=3", lines)
    assert (status, err) == (0, "")
    assert "image gone.png is missing" in out and "no turn to take back" in out
    assert [turn["said"][0]["text"] for turn in turns(chat.folder)] == lines[4:]
    status, _, _ = chat(f"--load={chat.folder}|--max-words=2|a ball")
    assert status == 0 and len(turns(chat.folder)) == 3
    assert [turn["settings"]["max_words"] for turn in turns(chat.folder)] == [3, 3, 2]
    assert chat("--load=nowhere|a ball")[0] == 2


def test_a_prompt_without_room_leaves_turns_out_and_says_so(chat):
    long = "a red ball " * 35  # 105 of 256 positions
    _, out, _ = chat("--max-words=3", [long, long, long])
    assert out.count("no room for the first 1 turns") == 1


def test_every_setting_is_an_option_and_reaches_the_answer(chat, monkeypatch):
    given = {"max_words": 2, "min_words": 1, "max_images": 2, "num_retrieved": 2}
    given |= {"num_generated": 3, "ret_scale_factor": 1.5, "gen_scale_factor": 2.0}
    given |= {"temperature": 0.5, "top_p": 0.9, "guidance_scale": 2.5, "num_inference_steps": 4}
    names = {field.name for field in fields(Settings) if not field.name.endswith("_ids")}
    assert {*given, "draw", "retrieve", "force_image"} == names, "all that an answer takes"
    made = []
    monkeypatch.setattr(Conversation, "say", lambda self, *_: made.append(self.settings) or [])
    monkeypatch.setattr(Conversation, "save", lambda *_: None)
    typed = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    more = ["--no-retrieve", "--force-image", "--run-seed=7", "--own-pictures", "--images=x"]
    monkeypatch.setattr(Conversation, "turns", [type("Turn", (), {"left_out": 0})], raising=False)
    monkeypatch.setattr(Conversation, "__init__", lambda self, _, **options: setattr(
        self, "settings", options))  # fmt: skip
    chat("|".join([*typed, *more, "--device=cpu", "--dtype=bf16", "--quantize=8bit", "a ball"]))
    rest = {
        "draw": True,
        "retrieve": False,
        "force_image": True,
        "run_seed": 7,
        "own_pictures": True,
    }
    assert made == [{**given, **rest}]
    placed = {"device": "cpu", "dtype": "bf16", "quantize": "8bit"}
    assert {k: chat.loaded[0][-1][k] for k in placed} == placed
    assert str(chat.loaded[0][-1]["images"]) == "x"


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("--max-words=-1|a ball", "max_words must be at least 0"),
        ("--top-p=0.5|a ball", "top_p needs a temperature"),
        ("--num-generated=0|a ball", "num_generated must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_told_before_a_model_is_loaded(chat, typed, sentence):
    status, out, err = chat(typed)
    assert (status, out, err.count("\n")) == (2, "", 1) and sentence in err
    assert chat.loaded == []


def test_choices_of_placement_are_the_ones_the_code_knows():
    import argparse

    parser = argparse.ArgumentParser()
    add_placement(parser)
    choices = {action.dest: action.choices for action in parser._actions}
    assert choices["quantize"] == QUANTIZE and set(choices["dtype"]) == {"auto", *DTYPES}
    assert set(cli_chat.SETTINGS) < {field.name for field in fields(Settings)}
