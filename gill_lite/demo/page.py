"""What happens on the page: a conversation for each browser tab, and what its clicks do.

Every method that `layout` binds takes the request first, and what it yields or returns is what
the page shows: the conversation, the message box, what the [IMG] tokens read, and a note.
"""

from collections import OrderedDict
from contextlib import contextmanager
from html import escape
from pathlib import Path

import gradio as gr

from gill_lite.answering.conversation import Conversation
from gill_lite.demo import session, showing
from gill_lite.demo.examples import EXAMPLES, drawn
from gill_lite.demo.reading import read_by_img
from gill_lite.errors import GillError
from gill_lite.world.probes import load_probes
from gill_lite.world.scene import Scene

MOST = 200  # conversations that are remembered; the one that was used longest ago goes first
CONTROLS = (  # of an answer, in the order in which the page has them
    *("ret_scale_factor", "max_words", "temperature", "run_seed", "guidance_scale"),
    *("num_inference_steps", "candidates", "draw", "retrieve", "own_pictures"),
)
EMPTY = {"text": "", "files": []}


class Page:
    """Everyone who visits, and the model that answers them."""

    def __init__(self, responder, folder: Path):
        self.responder, self.folder = responder, folder
        mini = responder.profile.name == "mini"
        self.asked = "{}" if mini else session.ASKED  # as the official page asks the real models
        self.showing = showing.Showing(load_probes() if mini else None)
        self.talks: OrderedDict[str, Conversation] = OrderedDict()
        self.number = 0  # of drawn pictures, so that no two are alike

    def talk(self, request: gr.Request) -> Conversation:
        """The conversation of the tab that sent the request; a new one where there was none."""
        name = request.session_hash
        talk = self.talks.pop(name, None) or Conversation(self.responder)
        self.talks[name] = talk
        if len(self.talks) > MOST:
            self.talks.popitem(last=False)
        return talk

    def leave(self, request: gr.Request) -> None:
        """A tab was closed: nothing of it is kept."""
        self.talks.pop(request.session_hash, None)

    # ---- answers -------------------------------------------------------------------------

    def send(self, request: gr.Request, message: dict, *controls):
        """Answer what is in the message box, and empty it."""
        with as_toast():
            said = self._items(message)
        yield from self._answer(self.talk(request), said, settings_of(controls))
        for name in message["files"]:
            Path(name).unlink(missing_ok=True)

    def again(self, request: gr.Request, *controls):
        """Answer the last message anew with the next seed; yields the seed, too."""
        talk, how = self.talk(request), settings_of(controls)
        with as_toast():
            if not talk.turns:
                raise GillError("there is no answer to vary; say something first")
        how["run_seed"] += 1
        place = len(talk.turns) - 1
        for shown in self._answer(talk, talk.turns[-1].said, how, place):
            yield *shown, how["run_seed"]

    def example(self, request: gr.Request, title: str, *controls):
        """Begin anew, and say the messages of an example one after the other."""
        self.leave(request)
        example, talk = EXAMPLES[title], self.talk(request)
        how = settings_of(controls, **example.settings)
        for said in example.said():
            for chat, box, read, _ in self._answer(talk, said, how):
                yield chat, box, read, example.note

    def _answer(self, talk, said: list, how: dict, place: int | None = None):
        """The box is emptied once: the next message may be written while one is answered."""
        before = [*self._chat(talk.turns[:place]), bubble("user", self.showing.said(said))]
        box = EMPTY
        with as_toast():
            for pieces in session.answer(talk, said, how, place):
                chat = [*before, bubble("assistant", showing.growing(pieces))]
                yield chat, box, "", gr.skip()
                box = gr.skip()
        yield self._chat(talk.turns), box, self._read(talk.turns), gr.skip()

    # ---- turns ---------------------------------------------------------------------------

    def undo(self, request: gr.Request):
        """Take the last turn back."""
        talk = self.talk(request)
        with as_toast():
            talk.undo()
        return self._chat(talk.turns), gr.skip(), "", ""

    def edit(self, request: gr.Request):
        """Take the last turn back into the message box."""
        talk = self.talk(request)
        with as_toast():
            said = talk.undo().said
        words = " ".join(session.unasked(item) for item in said if isinstance(item, str))
        files = [self._file(item) for item in said if not isinstance(item, str)]
        return self._chat(talk.turns), {"text": words, "files": files}, "", ""

    def reset(self, request: gr.Request):
        """Begin a new conversation."""
        self.leave(request)
        return [], EMPTY, "", ""

    # ---- messages ------------------------------------------------------------------------

    def underline(self, message: dict) -> str:
        """The words of the message that the model does not know."""
        tokenizer = self.responder.backbones.tokenizer
        text = message["text"][: session.MAX_LETTERS]
        return showing.underlined(tokenizer, text)

    def draw(self, message: dict, *values: str) -> dict:
        """The message with a picture of the scene that six choices make."""
        self.number += 1
        picture = self._file(drawn(Scene(*values), self.number))
        return {"text": message["text"], "files": [*message["files"], picture]}

    def _items(self, message: dict) -> list:
        """The texts and pictures of a message. Raises GillError for one that will not do."""
        text = message["text"].strip()
        pictures = [
            session.read_picture(Path(name).read_bytes(), Path(name).name)
            for name in message["files"][: session.MAX_PICTURES + 1]
        ]
        return [*([self.asked.format(text)] if text else []), *pictures]

    def _file(self, image) -> str:
        """A picture as a file that the message box can show."""
        self.number += 1
        path = self.folder / f"picture{self.number}.png"
        path.write_bytes(session.png(image))
        return str(path)

    # ---- files ---------------------------------------------------------------------------

    def save_json(self, request: gr.Request) -> str:
        """The conversation as the address of a JSON file."""
        return session.as_json(self._begun(request))

    def save_png(self, request: gr.Request) -> str:
        """The conversation as the address of a PNG file."""
        return session.as_uri(session.png(showing.as_picture(self._begun(request).turns)))

    def load(self, request: gr.Request, name: str):
        """Go on with a conversation from a file."""
        path = Path(name)
        with as_toast():
            talk = session.of_json(path.read_bytes(), self.responder)
        path.unlink()
        self.talks[request.session_hash] = talk
        return self._chat(talk.turns), EMPTY, self._read(talk.turns), ""

    def _begun(self, request: gr.Request) -> Conversation:
        talk = self.talk(request)
        with as_toast():
            if not talk.turns:
                raise GillError("there is nothing to save yet; say something first")
        return talk

    # ---- what is shown -------------------------------------------------------------------

    def _chat(self, turns) -> list[dict]:
        asked = [bubble("user", self.showing.said(turn.said)) for turn in turns]
        answered = [bubble("assistant", self.showing.answered(turn)) for turn in turns]
        return [one for pair in zip(asked, answered, strict=True) for one in pair]

    def _read(self, turns) -> str:
        """What the [IMG] tokens of the last answer read, where it has a picture."""
        if not turns or not turns[-1].answer.pictures:
            return ""
        return showing.heat(read_by_img(self.responder, session.before_picture(turns)))


def bubble(role: str, html: str) -> dict:
    """A message of the conversation."""
    return {"role": role, "content": gr.HTML(html, js_on_load=None)}


@contextmanager
def as_toast():
    """A GillError becomes a sentence at the edge of the page, which reads it as HTML."""
    try:
        yield
    except GillError as error:
        raise gr.Error(escape(str(error)), title="", print_exception=False) from error


def settings_of(controls, **others) -> dict:
    """The page's controls as settings of an answer."""
    how = {**dict(zip(CONTROLS, controls, strict=True)), **others}
    candidates = how.pop("candidates")
    # As officially: above temperature 0 words are drawn from the likeliest 95 %.
    top_p = 0.95 if how["temperature"] else 1.0
    return {**how, "top_p": top_p, "num_retrieved": candidates, "num_generated": candidates}
