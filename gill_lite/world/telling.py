"""How the world's texts tell of a scene: one Telling for each world there is.

`DESCRIBED` is the first one. Its stories put 0.92 of the last picture into words, so that pictures
had little to add. In `TOLD` stories say what happened and leave most of the look to the pictures,
as VIST's do, and captions are one short sentence, as the web's are.
"""

from dataclasses import dataclass

from gill_lite.profiles import MINI


@dataclass(frozen=True)
class Telling:
    """Chances and sentences of captions, stories and restatements. Chances are of 1."""

    captions: dict[str, float]  # a caption's form, and the number below which a draw chooses it
    opening: float | None  # a story's first sentence mentions an attribute; None: as captions do
    change: float  # a later sentence changes something
    add: float  # it tells something more; otherwise it only narrates
    unnamed: float  # it calls the object "it"
    epithets: float  # where it names the object, it adds a stated attribute
    verb: str  # the tense of stories
    narrative: tuple[str, ...]  # what a sentence says that tells nothing of the picture
    key_words: float  # a restatement is key words
    plain: float  # it is a caption without a lead


DESCRIBED = Telling(
    captions={"sentence": 0.55, "sentences": 0.85, "twice": 1.0},
    opening=None,
    change=0.5,
    add=0.3,
    unnamed=0.4,
    epithets=0.5,
    verb="is",
    narrative=(
        "{it} waited .",
        "{it} smiled .",
        "what a sight !",
        "nobody said a word .",
        "{it} was happy .",
        "time went by .",
        "{it} sang a song .",
        "it was quiet .",
    ),
    key_words=0.45,
    plain=0.2,
)
TOLD = Telling(
    captions={"sentence": 0.7, "fragment": 0.85, "event": 1.0},
    opening=0.3,
    change=0.3,
    add=0.25,
    unnamed=0.8,
    epithets=0.0,
    verb="was",
    narrative=(
        "we had a nice time .",
        "everyone was happy .",
        "nobody wanted to leave .",
        "we took a lot of photos .",
        "what a sight !",
        "my friends came too .",
        "we sat down for a while .",
        "someone told a good story .",
        "they all played a game .",
        "{it} smiled at us .",
        "{it} waited for us .",
        "{it} sang a song .",
        "we could not stop laughing .",
        "it was so quiet .",
        "then we had lunch .",
        "i will never forget it .",
        "we talked for hours .",
        "the family was proud of {it} .",
        "{it} made a new friend .",
        "it was the best trip of the year .",
        "we listened to some music .",
        "time went by .",
        "everyone wanted to see {it} .",
        "nobody said a word .",
    ),
    key_words=0.15,
    plain=0.2,
)
TELLINGS = {"described": DESCRIBED, "told": TOLD}
TELLING = TELLINGS[MINI.world]  # what every text tells unless another is asked for
