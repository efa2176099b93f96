"""Conversations that a visitor can start with one click; they are answered live."""

from typing import NamedTuple

from gill_lite.world.render import render
from gill_lite.world.scene import Scene, rng_for


class Example(NamedTuple):
    """Messages of a conversation, and what there is to see in it."""

    title: str
    note: str
    messages: tuple  # of each the items: texts, and Scenes of which pictures are made
    settings: dict = {}  # that differ from the page's

    def said(self) -> list[list]:
        """The items of each message, scenes as pictures."""
        return [[drawn(x) if isinstance(x, Scene) else x for x in items] for items in self.messages]


def drawn(scene: Scene, number: int = 0):
    """A picture of `scene`; another `number` has other details."""
    return render(scene, rng_for("page", *scene.as_dict().values(), number))


BALL = Scene("ball", "red", "big", "left", "beach", "day")
STAR = Scene("star", "yellow", "small", "right", "forest", "night")
CONE = Scene("cone", "blue", "big", "middle", "snow", "day")

ALL = (
    Example(
        "A story with pictures",
        "The words never say what it is, or where: only the pictures do. What GILL draws for the "
        "last sentence has to come from them.",
        (
            ["we had a nice day .", BALL],
            ["it is happy .", BALL.change(position="middle")],
            ["then night came ."],
        ),
    ),
    Example(
        "Refined over turns",
        "Each message changes one thing. All that was said before is the prompt of the next "
        "answer, so the picture should change in that one thing alone. (Retrieving is switched "
        "off: what is looked up need not follow.)",
        (["a small red ball on the left ."], ["it turned blue ."], ["it went to the snow ."]),
        {"retrieve": False},
    ),
    Example(
        "Retrieved, not drawn",
        "Drawing is switched off: [IMG0] looks a picture up among a gallery's. The nearest that "
        "there is need not be right in everything.",
        (["a big yellow star in the forest at night ."], ["a white cone in the desert ."]),
        {"draw": False, "candidates": 3},
    ),
    Example(
        "A dialogue",
        "Questions and answers about something that is not shown. GILL goes on as such talks do, "
        "and then gathers in one sentence what was said in all of them.",
        (
            ["q : what is it ? a : it is a box . q : what color is it ? a : it is purple ."],
            [
                "q : where is it ? a : at the beach . q : is it day or night ? a : it is night . "
                "so the picture shows"
            ],
        ),
    ),
    Example(
        "What is this?",
        "A picture, and the beginning of a sentence. GILL ends it with what it sees; what it draws "
        "then is its own picture of what it read.",
        ([STAR, "so the picture shows"], [CONE, "so the picture shows"]),
    ),
    Example(
        "A failure: two things",
        "The mini world's pictures hold one thing each, and so do all that GILL was trained on. "
        "Two cannot be drawn: it mixes them, or leaves one out.",
        (["a red ball on the left and a blue box on the right at the beach ."],),
    ),
    Example(
        "A failure: unknown words",
        "Neither word is in its vocabulary, so both reach the language model as the same unknown "
        "token. It answers all the same, and never says that it did not understand.",
        (["a dragon at the beach ."], ["a teapot at the beach ."]),
    ),
)

EXAMPLES = {example.title: example for example in ALL}
