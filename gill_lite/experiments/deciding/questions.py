"""Retrieve or generate, in the mini world (paper §3.3): the prompts and the gallery.

Half of the prompts ask for what people ask for most, half for scenes that training has not seen.
The gallery has a long tail, too: of what is common it has many pictures, of what is rare few or
none. `pairs` answers each prompt twice: by the best picture of it, and by a generated one. `votes`
has raters judge the pairs, `choices` learns from their labels, `outcome` makes the results file,
and `reasons` asks why it comes out as it does.
"""

from dataclasses import dataclass

from gill_lite.answering.gallery import DRAWN
from gill_lite.errors import GillError
from gill_lite.evaluation.tables import TABLES
from gill_lite.world import language
from gill_lite.world.scene import Scene, common_scene, rng_for, sample_scene

TABLE = TABLES["decide"]
SPLITS = tuple(TABLE.task.contexts)  # "seen" and "novel" scenes


@dataclass(frozen=True)
class Question:
    """A prompt that names all six attributes of a scene."""

    example_id: str
    text: str
    scene: Scene
    split: str  # "seen" or "novel"


def make(count: int = TABLE.count) -> list[Question]:
    """`count` prompts, half of common seen and half of novel scenes, the same in every run.

    Raises GillError for an odd count or one below 2.
    """
    if count < 2 or count % 2:
        raise GillError(f"the number of prompts must be even and at least 2, not {count}")
    made = []
    for split in SPLITS:
        for number in range(count // 2):
            rng = rng_for("decide", split, number)
            scene = common_scene(rng) if split == "seen" else sample_scene(rng, split)
            text = language.sentence(scene.as_dict(), rng)
            made.append(Question(f"{split}-{number}", text, scene, split))
    return made


def gallery_scenes() -> list[Scene]:
    """What the pictures of `Responder.gallery` show, in their order; all are seen scenes."""
    return [common_scene(rng_for("gallery", number)) for number in range(DRAWN)]


def matches(asked: Scene, shown: Scene) -> int:
    """How many of the six attributes two scenes share."""
    return sum(a == b for a, b in zip(asked.labels(), shown.labels(), strict=True))
