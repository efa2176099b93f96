"""A conversation as the page shows it: HTML of pictures and what they are, and one PNG of all.

Every text of a visitor or a model is escaped here, and pictures stand in the HTML themselves.
"""

from collections.abc import Callable, Sequence
from html import escape
from textwrap import wrap

import torch
from PIL import Image, ImageDraw, ImageFont

from gill_lite.answering.answers import ShownPicture
from gill_lite.answering.drawing import from_pil
from gill_lite.datasets.images import squash
from gill_lite.demo.reading import Read
from gill_lite.demo.session import as_uri, png
from gill_lite.world.language import PLACE, POSITION, TIME, noun_phrase
from gill_lite.world.scene import ATTRIBUTES

KINDS = {"gen": "generated", "ret": "retrieved"}
WIDTH, MARGIN, LINE = 640, 24, 26  # of the saved picture, in pixels
PICTURE = 192  # its pictures' longer side


class Telling:
    """Puts conversations of the mini world, or of others, into words and HTML.

    probes: see `world.probes`; None where no probes read a picture's attributes.
    """

    def __init__(self, probes=None):
        self.probes = probes

    @torch.no_grad()
    def words_for(self, image: Image.Image) -> str:
        """What the probes read in a picture; "" without probes."""
        if self.probes is None:
            return ""
        logits = self.probes(from_pil(squash(image, 64))[None])
        stated = {name: ATTRIBUTES[name][int(logits[name].argmax())] for name in ATTRIBUTES}
        return describe(stated)

    def said(self, item) -> str:
        """An item of a message as HTML."""
        if isinstance(item, str):
            return text(item)
        read = self.words_for(item)
        about = f"; the probes read: {read}" if read else ""
        return figure(item, f"A picture you sent{about}", escape(f"your picture{about}"))

    def shown(self, picture: ShownPicture) -> str:
        """A picture of an answer as HTML: why it is shown, and what else there was."""
        if picture.source is None:
            return text("(a picture was said, but none could be had)")
        best, others = None, []
        for kind in sorted(KINDS, key=lambda kind: kind != picture.source):
            for one in getattr(picture, KINDS[kind]):
                if best is None:
                    best = one
                else:
                    others.append(self._candidate(one.image, KINDS[kind], one.score))
        kind, read = KINDS[picture.source], self.words_for(picture.image)
        lines = [f"<b>{kind}</b> · {_decision(picture)}"]
        lines += [f"the probes read: {escape(read)}"] if read else []
        more = f"<details><summary>{_more(picture)}</summary>{''.join(others)}</details>"
        alt = f"A {kind} picture: {read}" if read else f"A {kind} picture"
        return figure(picture.image, alt, "<br>".join(lines), more if others else "")

    def _candidate(self, image: Image.Image, kind: str, score: float) -> str:
        read = self.words_for(image)
        return figure(image, f"{kind}: {read}", f"{kind}, cosine {score:.2f}<br>{escape(read)}")

    def messages(self, turns: Sequence, said: Sequence = (), partial: Sequence = ()) -> list:
        """Turns, and one that is being answered, as (role, [HTML]) pairs."""
        told = []
        for turn in turns:
            told.append(("user", [self.said(item) for item in turn.said]))
            answer = [self.shown(x) if isinstance(x, ShownPicture) else text(x) for x in turn.answer]
            if turn.left_out:
                note = f"(no room for the first {turn.left_out} turns: they were not read)"
                answer.insert(0, text(note))
            told.append(("assistant", answer or [text("(the model said nothing)")]))
        if said:
            told.append(("user", [self.said(item) for item in said]))
            told.append(("assistant", [self._growing(item) for item in partial if item != ""]))
        return [(role, pieces) for role, pieces in told if pieces]

    def _growing(self, item) -> str:
        if isinstance(item, str):
            return text(item)
        return figure(item, "A picture that is being drawn", "being drawn …")


def _decision(picture: ShownPicture) -> str:
    if picture.forced:
        return "asked for, not said by the model"
    if picture.probabilities is None:
        return "nothing decides here: drawn pictures go first"
    generate, retrieve = picture.probabilities
    return f"decision: generate {generate:.0%}, retrieve {retrieve:.0%}"


def _more(picture: ShownPicture) -> str:
    return {
        "gen": "what it would have retrieved, and other candidates",
        "ret": "what it would have drawn, and other candidates",
    }[picture.source]


def describe(stated: dict) -> str:
    """All attributes of a scene in one phrase."""
    position, place = POSITION[stated["position"]], PLACE[stated["place"]]
    return f"{noun_phrase(stated)} {position} {place} {TIME[stated['time']][0]}"


def text(words: str) -> str:
    """A text as HTML."""
    return f"<p>{escape(words)}</p>"


def figure(image: Image.Image, alt: str, caption: str, more: str = "") -> str:
    """A picture as HTML. caption, more: HTML."""
    source = as_uri(png(image))
    image_tag = f'<img src="{source}" alt="{escape(alt)}">'
    return f"<figure>{image_tag}<figcaption>{caption}</figcaption>{more}</figure>"


def underlined(pieces: Sequence[tuple[str, bool]]) -> str:
    """A message with the words that the model does not know underlined; "" without any."""
    unknown = list(dict.fromkeys(piece for piece, is_unknown in pieces if is_unknown))
    if not unknown:
        return ""
    marked = "".join(f"<u>{escape(p)}</u>" if is_unknown else escape(p) for p, is_unknown in pieces)
    many = "words the model does not know" if len(unknown) > 1 else "a word the model does not know"
    return f"<p>{marked}</p><p>{many}: {escape(', '.join(unknown))}</p>"


def heat(read: Sequence[Read]) -> str:
    """What the [IMG] tokens read as HTML: the darker, the more attention."""
    most = max(one.share for one in read)
    parts = []
    for one in read:
        style, share = f"--heat:{one.share / most:.2f}", f"{one.share:.0%}"
        if isinstance(one.item, str):
            parts.append(f'<span style="{style}" title="{share}">{escape(one.item)}</span>')
        else:
            image = f'<img src="{as_uri(png(one.item))}" alt="a picture">'
            parts.append(f'<span style="{style}" title="{share}">{image} {share}</span>')
    return f"<p>{' '.join(parts)}</p>"


# ---- one picture -------------------------------------------------------------------------------


def as_picture(turns: Sequence) -> Image.Image:
    """The conversation as one picture, texts wrapped, pictures with what they are beside them."""
    blocks = []  # (height, draw it at (x, y))
    for turn in turns:
        blocks += [_block("You", item) for item in turn.said]
        blocks += [_block("GILL", item) for item in turn.answer]
    height = 2 * MARGIN + sum(height for height, _ in blocks)
    page = Image.new("RGB", (WIDTH, height), "white")
    y = MARGIN
    for height, draw in blocks:
        draw(page, y)
        y += height
    return page


def _block(who: str, item) -> tuple[int, Callable]:
    font = _font()
    if isinstance(item, ShownPicture):
        words, image = KINDS.get(item.source, "no picture"), item.image
    else:
        words, image = ("", item) if isinstance(item, Image.Image) else (item, None)
    lines = [f"{who}: {line}" if n == 0 else line for n, line in enumerate(wrap(words, 58) or [""])]
    small = image.copy() if image else None
    if small:
        small = small.resize([max(1, PICTURE * side // max(image.size)) for side in image.size])
    height = LINE * len(lines) + (small.height + LINE // 2 if small else 0)

    def draw(page: Image.Image, y: int) -> None:
        pen = ImageDraw.Draw(page)
        color = "#1d4ed8" if who == "You" else "#111827"
        for n, line in enumerate(lines):
            pen.text((MARGIN, y + n * LINE), line, font=font, fill=color)
        if small:
            page.paste(small, (MARGIN, y + len(lines) * LINE))

    return height, draw


def _font():
    from matplotlib import get_data_path  # its DejaVu Sans has most alphabets

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", 17)
