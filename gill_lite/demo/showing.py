"""A conversation as the page shows it: HTML of pictures and what they are, and one PNG of all.

Every text of a visitor or a model is escaped here, and pictures stand in the HTML themselves.
"""

from collections.abc import Sequence
from html import escape
from textwrap import wrap

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

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
COLORS = {"You": "#1d4ed8", "GILL": "#111827"}


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
    return f"<figure>{_image(image, alt)}<figcaption>{caption}</figcaption>{more}</figure>"


def _image(image: Image.Image, alt: str) -> str:
    return f'<img src="{as_uri(png(image))}" alt="{escape(alt)}">'


def underlined(tokenizer, message: str) -> str:
    """A message with the words underlined that the LM has no token for; "" without any."""
    if tokenizer.unk_token_id is None:
        return ""
    read = tokenizer(message, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    marked, unknown, at = "", [], 0
    for token, (start, end) in zip(read.input_ids, read.offset_mapping, strict=True):
        if token == tokenizer.unk_token_id:
            unknown.append(escape(message[start:end]))
            marked += f"{escape(message[at:start])}<u>{unknown[-1]}</u>"
            at = end
    if not unknown:
        return ""
    told = f"the model does not know: {', '.join(dict.fromkeys(unknown))}"
    return f'<div role="status"><p>{marked}{escape(message[at:])}</p><p>{told}</p></div>'


def heat(read: Sequence[Read]) -> str:
    """What the [IMG] tokens read as HTML: the darker, the more; the most of it in words, too."""
    most = sorted(read, key=lambda one: -one.share)[:3]
    parts = []
    for one in read:
        what = escape(one.item) if isinstance(one.item, str) else _image(one.item, "a picture")
        style, title = f"--heat:{one.share / most[0].share:.2f}", f"{one.share:.0%}"
        parts.append(f'<span style="{style}" title="{title}">{what}</span>')
    told = ", ".join(f"{escape(_name(one))} {one.share:.0%}" for one in most)
    return f"<p>{' '.join(parts)}</p><p>most: {told}</p>"


def _name(read: Read) -> str:
    return read.item if isinstance(read.item, str) else "a picture"


# ---- one picture -------------------------------------------------------------------------------


def as_picture(turns: Sequence) -> Image.Image:
    """The conversation as one picture: texts wrapped, pictures under what they are."""
    strips = []
    for turn in turns:
        strips += [_strip("You", item) for item in turn.said]
        strips += [_strip("GILL", item) for item in turn.answer]
    page = Image.new("RGB", (WIDTH, 2 * MARGIN + sum(strip.height for strip in strips)), "white")
    y = MARGIN
    for strip in strips:
        page.paste(strip, (MARGIN, y))
        y += strip.height
    return page


def _strip(who: str, item) -> Image.Image:
    """What was said once, as wide as the page between its margins."""
    from matplotlib import get_data_path  # its DejaVu Sans has most alphabets

    words, image = (unasked(item), None) if isinstance(item, str) else ("", item)
    if isinstance(item, ShownPicture):
        words, image = KINDS.get(str(item.source), "no picture"), item.image
    lines = wrap(f"{who}: {words}", 58)
    small = image and ImageOps.contain(image, (PICTURE, PICTURE))
    height = LINE * len(lines) + (small.height + LINE // 2 if small else 0)
    strip = Image.new("RGB", (WIDTH - 2 * MARGIN, height), "white")
    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", 17)
    for n, line in enumerate(lines):
        ImageDraw.Draw(strip).text((0, n * LINE), line, COLORS[who], font)
    if small:
        strip.paste(small, (0, LINE * len(lines)))
    return strip
