"""What could be known of a picture from its context, before any model is run.

An oracle remembers every attribute that words or pictures give, and guesses the others: where
nothing says the colour, one time in six it is right. Its share of right attributes is the ceiling
of attribute accuracy in that context.
"""

from gill_lite.world import corpus
from gill_lite.world import language as lang
from gill_lite.world.scene import ATTRIBUTES, Scene, rng_for, sample_scene

EXAMPLES = 2_000


def share_known(scene: Scene, known: dict[str, str]) -> float:
    """Share of the scene's attributes that are right, of one who knows `known` and guesses."""
    chances = [
        float(known[name] == getattr(scene, name)) if name in known else 1 / len(values)
        for name, values in ATTRIBUTES.items()
    ]
    return sum(chances) / len(chances)


def said(text: str) -> dict[str, str]:
    """The attributes that a sentence of a story names; of two values the later is the present."""
    names = {value: name for name, values in ATTRIBUTES.items() for value in values}
    return {names[word]: word for word in text.split() if word in names}


def of_stories(split: str = "seen", count: int = EXAMPLES) -> dict[str, float]:
    """Share known of a story's last picture, by context, the mean over `count` stories."""
    totals = {"1 caption": 0.0, "5 captions": 0.0, "5 captions, 4 pictures": 0.0}
    for number in range(count):
        told = lang.story(rng_for("oracle", split, number), split)
        last = said(told.captions[-1])
        contexts = (last, told.stated[-1], {**told.scenes[-2].as_dict(), **last})
        for name, known in zip(totals, contexts, strict=True):
            totals[name] += share_known(told.scenes[-1], known) / count
    return totals


def of_dialogues(rounds=(1, 5, 10), split: str = "seen", count: int = EXAMPLES) -> dict[int, float]:
    """Share known of a dialogue's picture after some of its rounds, the mean over `count`."""
    totals = dict.fromkeys(rounds, 0.0)
    for number in range(count):
        rng = rng_for("oracle dialogue", split, number)
        scene = sample_scene(rng, split)
        _, topics = lang.dialogue_with_topics(scene, rng)
        states = corpus.dialogue_states(scene, topics)
        for n in rounds:
            totals[n] += share_known(scene, states[n - 1]) / count
    return totals
