"""What one asks of an answer, and what an answer is: texts and shown pictures, interleaved.

No torch here: the command line takes its options from `Settings`.
"""

import math
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import NamedTuple

from PIL import Image

from gill_lite.errors import GillError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. A word here is one choice: [IMG0] ... [IMG r-1] are one."""

    max_words: int = 32
    min_words: int = 0  # no [IMG0] before that many words
    max_images: int | None = None  # nor behind so many pictures; None: no limit, as officially
    temperature: float = 0.0  # 0: the likeliest token
    top_p: float = 1.0
    ret_scale_factor: float = 1.0  # above 1: |logit of [IMG0]| times this
    gen_scale_factor: float = 1.0  # the same once more
    stop_ids: tuple[int, ...] = ()  # a row ends with the first of these,
    newline_ids: tuple[int, ...] = ()  # with the first of these behind anything else,
    sentence_ids: tuple[int, ...] = ()  # or of these and the picture said right behind it

    def __post_init__(self):
        if self.temperature == 0 and self.top_p != 1:
            raise GillError("top_p needs a temperature above 0; with 0 decoding is greedy")
        if not 0 <= self.temperature < math.inf or not 0 < self.top_p <= 1:
            raise GillError(
                f"temperature must be at least 0 and top_p in (0, 1], not {self.temperature} "
                f"and {self.top_p}"
            )
        for name in ("max_words", "max_images"):
            if (getattr(self, name) or 0) < 0:
                raise GillError(f"{name} must be at least 0, not {getattr(self, name)}")
        factors = self.ret_scale_factor, self.gen_scale_factor
        if not all(math.isfinite(factor) for factor in factors):
            raise GillError(f"the scale factors of [IMG0] must be finite, not {factors}")

    def positions(self, num_img_tokens: int) -> int:
        """The most that an answer takes; pictures without a limit are counted as words."""
        return self.max_words + (self.max_images or 0) * (num_img_tokens - 1)

    def most_positions(self, num_img_tokens: int) -> int:
        """The most that an answer can take, where every word that may be is a picture."""
        pictures = max(0, self.max_words - self.min_words)
        if self.max_images is not None:
            pictures = min(pictures, self.max_images)
        return self.max_words + pictures * (num_img_tokens - 1)


@dataclass(frozen=True)
class Settings(Sampling):
    """How an answer is made: its words as in `Sampling`, and which pictures it shows."""

    max_images: int | None = 1  # pictures that an answer shows at most; None: no limit
    force_image: bool = False  # an answer without a picture gets one, as in the evaluation
    num_retrieved: int = 1  # candidates to retrieve for a picture
    num_generated: int = 1  # candidates to draw for it
    draw: bool = True  # False: retrieve, but draw nothing
    retrieve: bool = True  # False: draw, but look nothing up
    guidance_scale: float | None = None  # None: the profile's
    num_inference_steps: int | None = None  # None: the profile's

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_retrieved", "num_generated", "num_inference_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise GillError(f"{name} must be at least 1, not {value}")
        if self.guidance_scale is not None and not math.isfinite(self.guidance_scale):
            raise GillError(f"guidance_scale must be finite, not {self.guidance_scale}")
        if not (self.draw or self.retrieve):
            raise GillError("an answer's pictures are drawn or retrieved; allow one of both")
        if self.force_image and self.max_images == 0:
            raise GillError("force_image asks for a picture, and max_images=0 forbids all")

    @classmethod
    def of(cls, options: dict) -> "Settings":
        """The settings called so. Raises GillError naming the nearest one."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                close = get_close_matches(name, known, n=1, cutoff=0)
                raise GillError(f"an answer has no setting '{name}'; did you mean '{close[0]}'?")
        return cls(**options)


class Retrieved(NamedTuple):
    """A picture of the index."""

    image: Image.Image
    score: float  # cosine with the retrieval embedding of [IMG0]
    id: str


class Generated(NamedTuple):
    """A picture that was drawn."""

    image: Image.Image
    score: float  # cosine of its own embedding with that of [IMG0]
    seed: int  # of its noise


@dataclass(frozen=True)
class ShownPicture:
    """A run of [IMG] tokens as pictures: candidates of both kinds, best first, and the choice."""

    retrieved: tuple[Retrieved, ...] = ()
    generated: tuple[Generated, ...] = ()
    decision: str | None = None  # "gen" or "ret"; None without a classifier
    probabilities: tuple[float, float] | None = None  # of "gen" and "ret"
    forced: bool = False  # asked for with `force_image`; the model did not say it
    passed_over: tuple[str, ...] = ()  # better ids whose pictures could not be opened

    @property
    def source(self) -> str | None:
        """Of which kind to show: "gen" or "ret", as decided, or the kind there is.

        Without a classifier generated ones go first. None where there is no candidate at all.
        """
        there = {"gen": self.generated, "ret": self.retrieved}
        order = (self.decision, "gen", "ret")
        return next((kind for kind in order if kind and there[kind]), None)

    @property
    def image(self) -> Image.Image | None:
        """The picture to show: the best of its kind."""
        if self.source is None:
            return None
        return (self.generated if self.source == "gen" else self.retrieved)[0].image


class Response(list):
    """An answer: texts (str) and ShownPictures, in the order in which they were said."""

    @property
    def text(self) -> str:
        """All texts, without the pictures between them."""
        return " ".join(item for item in self if isinstance(item, str))

    @property
    def pictures(self) -> list[ShownPicture]:
        """All pictures, without the texts between them."""
        return [item for item in self if isinstance(item, ShownPicture)]

    @property
    def first(self) -> ShownPicture:
        """The first picture; an empty one where there is none."""
        return self.pictures[0] if self.pictures else ShownPicture()

    @property
    def generated(self) -> Image.Image | None:
        """The best generated candidate of the first picture."""
        return next((made.image for made in self.first.generated), None)

    @property
    def retrieved(self) -> Image.Image | None:
        """The best retrieved candidate of the first picture."""
        return next((found.image for found in self.first.retrieved), None)

    @property
    def retrieved_score(self) -> float | None:
        """Its cosine."""
        return next((found.score for found in self.first.retrieved), None)

    @property
    def retrieved_id(self) -> str | None:
        """Its id in the index."""
        return next((found.id for found in self.first.retrieved), None)

    @property
    def decision(self) -> str | None:
        """What the classifier says of the first picture: "gen", "ret", or None without one."""
        return self.first.decision
