"""The panel of the dialogue's chapter: what is sent, shown and kept."""

import io
from datetime import UTC, datetime
from types import SimpleNamespace

import ipywidgets as widgets
import pytest
from PIL import Image

from gill_lite.answering.answers import Generated, Response, Retrieved, ShownPicture
from gill_lite.course.panel import Panel
from gill_lite.errors import GillError

PICTURE = Image.new("RGB", (8, 8))
SHOWN = ShownPicture((Retrieved(PICTURE, 0.5, "a"),), (Generated(PICTURE, 0.9, 0),), "gen")


class Parrot:
    """Stands in for a Responder: remembers its prompts, answers with words and a picture."""

    def __init__(self):
        self.prompts = []
        config = SimpleNamespace(num_img_tokens=8)
        self.gill = SimpleNamespace(lm=SimpleNamespace(config=None), config=config)

    def respond(self, prompt, run_seed, **settings):
        self.prompts.append(list(prompt))
        if "too long" in prompt[-1]:
            raise GillError("the prompt is too long <b>")
        return Response(["it is <big> .", SHOWN])


@pytest.fixture
def panel():
    return Panel(Parrot())


def told(panel) -> list[str]:
    """What stands above the line, pictures by whose they are."""
    return [
        child.value if isinstance(child, widgets.HTML) else child.children[0].value
        for child in panel.said.children
    ]


def enter(panel, text):
    panel.line.value = text
    panel.line._handle_custom_msg({"event": "submit"}, [])


def test_enter_sends_the_line_and_all_stays_visible(panel):
    enter(panel, "a red ball .")
    assert panel.line.value == ""
    assert told(panel) == ["<b>you:</b> a red ball .", "<b>GILL:</b> it is &lt;big&gt; .",
                           "GILL made, and chose it", "GILL found"]  # fmt: skip
    enter(panel, "it turned blue .")
    assert told(panel)[4] == "<b>you:</b> it turned blue ." and len(told(panel)) == 8
    prompts = panel.conversation.responder.prompts
    assert prompts[1] == ["a red ball .", "it is <big> .", "it turned blue ."]


def test_only_enter_sends(panel):
    panel.line.value = "a red ball ."
    panel.line._handle_custom_msg({"event": "focus"}, [])
    assert told(panel) == [] and panel.line.value == "a red ball ."


@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_a_panel_is_made_without_a_warning():
    assert Panel(Parrot()).widget.children


def test_pictures_go_along_with_the_next_line(panel):
    content = io.BytesIO()
    PICTURE.save(content, "PNG")
    about = {"type": "image/png", "size": 1, "last_modified": datetime.now(UTC)}
    panel.file.value = [{"name": "a.png", "content": memoryview(content.getvalue()), **about}]
    panel.choices["color"].value = "blue"
    panel.show_drawn()
    assert told(panel) == ["you", "you"]
    enter(panel, "it turned red .")
    (prompt,) = panel.conversation.responder.prompts
    assert [type(item) for item in prompt] == [Image.Image, Image.Image, str]
    assert panel.shown == []


def test_what_cannot_be_sent_is_told(panel):
    enter(panel, "far too long .")
    assert told(panel)[-1] == "<b>not sent:</b> the prompt is too long &lt;b&gt;"
    assert panel.conversation.turns == []
    panel.show_file({"new": [{"name": "a.txt", "content": b"no picture"}]})
    assert "a.txt" in told(panel)[-1]


def test_start_anew_forgets(panel):
    enter(panel, "a red ball .")
    panel.start_anew()
    assert told(panel) == [] and panel.conversation.turns == []


def test_labels_and_texts_are_not_cut(panel):
    found = [w for w in panel.controls() if isinstance(w, widgets.FloatSlider)]
    assert all(w.style.description_width == "initial" for w in found)
    assert panel.line.layout.width == "100%"
