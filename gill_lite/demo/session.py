"""A conversation within the limits of a page, answered while one watches, and as one file.

Nothing here knows the page, and nothing stays on disk: a conversation is saved by the browser.
"""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from itertools import takewhile
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

from PIL import Image

from gill_lite.answering.conversation import FILE, Conversation
from gill_lite.answering.drawing import to_pil
from gill_lite.datasets.images import decode_image
from gill_lite.errors import GillError
from gill_lite.files import read_json, write_json

MAX_TURNS = 20
MAX_LETTERS = 600  # of a message
MAX_PICTURES = 4  # of a message
MAX_PIXELS = 20_000_000  # of a picture; it is decoded whole before it is shrunk
SIDE = 512  # pixels that a picture keeps on its longer side
MAX_SAVED = 300  # pictures in a file that is loaded
MAX_WORDS_SAVED = 100_000  # bytes of its words
FRAMES = 10  # pictures that are shown while one is drawn, at most
ASKED = "Q: {}\nA:"
PNG = "data:image/png;base64,"


class Left(Exception):
    """Nobody watches an answer any more."""


def answer(
    conversation: Conversation, said: list, settings: dict, place: int | None = None
) -> Iterator[list]:
    """Say texts and pictures; yields what there is of the answer: texts, and None or what is
    drawn so far for a picture.

    place: the turn that is said anew, with all behind it; by default one more is said. Once the
    iterator has ended the conversation has the turn; where it is left early the work ends, too.
    Raises GillError for what is beyond the limits.
    """
    check(said)
    count, drawing = len(conversation.turns), conversation.responder.drawing
    if place is None and count >= MAX_TURNS:
        raise GillError(f"a conversation has at most {MAX_TURNS} turns here; begin another")
    say = conversation.say if place is None else partial(conversation.edit, place)
    steps = settings.get("num_inference_steps") or drawing.backbones.profile.num_inference_steps

    def work(tell: Callable) -> None:
        so_far: list = []

        def on_text(pieces: list) -> None:
            so_far[:] = pieces
            tell(pieces)

        def on_step(step: int, latents) -> None:
            if step % max(1, steps // FRAMES) == 0:
                image, first = to_pil(drawing.decode(latents[:1])[0]), so_far.index(None)
                tell([*so_far[:first], image, *so_far[first + 1 :]])

        say(*said, on_text=on_text, on_step=on_step, **settings)

    return watched(work)


def watched(work: Callable) -> Iterator:
    """What `work(tell)` tells while it runs in a thread of its own, the newest each time.

    Where the iterator is closed, the next `tell` raises and so ends the work.
    """
    news, left = SimpleQueue(), threading.Event()

    def tell(what) -> None:
        if left.is_set():
            raise Left
        news.put(what)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work, tell)
        done.add_done_callback(lambda _: news.put(done))
        try:
            while (newest := _newest(news)) is not done:
                yield newest
        finally:
            left.set()
    done.result()


def _newest(news: SimpleQueue):
    newest = news.get()
    while not news.empty():
        newest = news.get()
    return newest


def before_picture(turns: list) -> list:
    """What the [IMG] tokens of the last answer's first picture could read."""
    *earlier, last = turns
    own = last.settings["own_pictures"]
    read = [item for turn in earlier[last.left_out :] for item in turn.items(own)]
    return [*read, *last.said, *takewhile(lambda item: isinstance(item, str), last.answer)]


# ---- what a message may hold -----------------------------------------------------------------


def check(said: list) -> None:
    """Raise GillError where a message is beyond the limits."""
    letters = sum(len(item) for item in said if isinstance(item, str))
    pictures = sum(isinstance(item, Image.Image) for item in said)
    if not said:
        raise GillError("the message is empty; write something, or add a picture")
    if letters > MAX_LETTERS:
        raise GillError(
            f"the message has {letters} letters; at most {MAX_LETTERS} can be sent, shorten it"
        )
    if pictures > MAX_PICTURES:
        raise GillError(f"the message has {pictures} pictures; send {MAX_PICTURES} at most")


def read_picture(content: bytes, name: str) -> Image.Image:
    """An uploaded picture as RGB, at most SIDE pixels long. GillError where it is none."""
    image = decode_image(content, f"the picture {name[:60]}", MAX_PIXELS)
    image.thumbnail((SIDE, SIDE))
    return image


def unasked(text: str) -> str:
    """A text as it was written, without ASKED around it."""
    before, after = ASKED.split("{}")
    inside = text.startswith(before) and text.endswith(after)
    return text[len(before) : -len(after)] if inside else text


# ---- one file ----------------------------------------------------------------------------------


def as_json(conversation: Conversation) -> str:
    """What `Conversation.save` writes as one text, the pictures inside."""
    with TemporaryDirectory() as folder:
        record = read_json(conversation.save(folder))
        record = _with_pictures(record, lambda name: as_uri((Path(folder) / name).read_bytes()))
    return json.dumps(record, ensure_ascii=False)


def of_json(content: bytes, responder) -> Conversation:
    """The inverse of `as_json`. Raises GillError for what this page did not save."""
    pictures: list[Image.Image] = []

    def keep(uri: str) -> str:
        if not uri.startswith(PNG) or len(pictures) == MAX_SAVED:
            raise GillError(f"a file holds its pictures itself, and {MAX_SAVED} at most")
        pictures.append(read_picture(base64.b64decode(uri[len(PNG) :]), "in the file"))
        return f"{len(pictures)}.png"

    try:
        record = _with_pictures(json.loads(content), keep)
        with TemporaryDirectory() as folder:
            for number, picture in enumerate(pictures, 1):
                picture.save(Path(folder) / f"{number}.png")
            words = write_json(Path(folder) / FILE, record).stat().st_size
            conversation = Conversation.load(folder, responder)
    except (ValueError, AttributeError, RecursionError) as error:  # GillError is a ValueError
        raise GillError("this file is no conversation that was saved on this page") from error
    if len(conversation.turns) > MAX_TURNS or words > MAX_WORDS_SAVED:
        raise GillError(f"this file is too long; {MAX_TURNS} turns can be read at most")
    return conversation


def _with_pictures(record, change: Callable):
    """A JSON value with what stands behind each key "picture" changed."""
    if isinstance(record, list):
        return [_with_pictures(value, change) for value in record]
    if not isinstance(record, dict):
        return record
    return {
        key: change(value) if key == "picture" else _with_pictures(value, change)
        for key, value in record.items()
    }


def as_uri(content: bytes) -> str:
    """A PNG file as an address that holds it."""
    return PNG + base64.b64encode(content).decode()


def png(image: Image.Image) -> bytes:
    """A picture as a PNG file."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
