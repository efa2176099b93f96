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
from gill_lite.demo.session import as_uri, png, unasked
from gill_lite.world.language import PLACE, POSITION, TIME, noun_phrase
from gill_lite.world.scene import ATTRIBUTES

KINDS = {"gen": "generated", "ret": "retrieved"}
OTHERS = {"gen": "what it would have retrieved", "ret": "what it would have drawn"}
WIDTH, MARGIN, LINE = 640, 24, 26  # of the saved picture, in pixels
PICTURE = 192  # its pictures' longer side


class Showing:
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

    def said(self, items: Sequence) -> str:
        """A message as HTML."""
        return "".join(text(unasked(x)) if isinstance(x, str) else self._sent(x) for x in items)

    def answered(self, turn) -> str:
        """A turn's answer as HTML."""
        left_out = f"(no room for the first {turn.left_out} turns: they were not read)"
        notes = [left_out] * bool(turn.left_out) + ["(nothing was said)"] * (not turn.answer)
        pieces = [text(x) if isinstance(x, str) else self.shown(x) for x in turn.answer]
        return "".join([*map(text, notes), *pieces])

    def _sent(self, image: Image.Image) -> str:
        read = self.words_for(image)
        return figure(image, f"Your picture: {read}".rstrip(": "), f"<b>yours</b>{_read(read)}")

    def shown(self, picture: ShownPicture) -> str:
        """A picture of an answer as HTML: why it is shown, and what else there was."""
        order = sorted(KINDS, key=lambda kind: kind != picture.source)
        candidates = [(KINDS[k], one) for k in order for one in getattr(picture, KINDS[k])]
        if not candidates:
            return text("(a picture was said, but none could be had)")
        best, *others = [self._candidate(kind, one) for kind, one in candidates]
        if others:
            inside = "".join(figure(*one) for one in others)
            both = picture.generated and picture.retrieved
            title = OTHERS[str(picture.source)] if both else "other candidates"
            others = [f"<details><summary>{title}</summary>{inside}</details>"]
        image, alt, caption = best
        return figure(image, alt, caption + _decision(picture), *others)

    def _candidate(self, kind: str, one) -> tuple[Image.Image, str, str]:
        """A picture, what it shows, and its caption."""
        read = self.words_for(one.image)
        caption = f"<b>{kind}</b>, cosine {one.score:.2f}{_read(read)}"
        return one.image, f"A {kind} picture: {read}".rstrip(": "), caption


def _read(words: str) -> str:
    """What the probes read, for those who see; the others hear it instead of the picture."""
    return f'<br><span aria-hidden="true">the probes read: {escape(words)}</span>' if words else ""


def growing(pieces: Sequence) -> str:
    """An answer that is not whole yet as HTML: texts, and for a picture None or a first sight."""
    told = [
        figure(piece, "A picture that is being drawn", "being drawn")
        if isinstance(piece, Image.Image)
        else text(piece or "[IMG]")
        for piece in pieces
    ]
    return "".join([*told, text("…")])


def _decision(picture: ShownPicture) -> str:
    if picture.probabilities is None:
        return ""
    generate, retrieve = picture.probabilities
    return f"<br>decision: generate {generate:.0%}, retrieve {retrieve:.0%}"


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
    most, parts = max(one.share for one in read), []
    for one in read:
        share, what = f"{one.share:.0%}", one.item
        if isinstance(what, str):
            what = escape(what)
        else:
            what = f'<img src="{as_uri(png(what))}" alt="a picture"> {share}'
        parts.append(f'<span style="--heat:{one.share / most:.2f}" title="{share}">{what}</span>')
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
        words, image = KINDS.get(str(item.source), "no picture"), item.image
    else:
        words, image = ("", item) if isinstance(item, Image.Image) else (unasked(item), None)
    lines = [f"{who}: {line}" if n == 0 else line for n, line in enumerate(wrap(words, 58) or [""])]
    small = None
    if image:
        small = image.resize([max(1, PICTURE * side // max(image.size)) for side in image.size])
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
