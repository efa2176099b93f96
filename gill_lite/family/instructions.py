"""Instructions made from a scene's attributes, in LLaVA's three kinds (Liu et al., 2023).

LLaVA lets a language model write them from captions and boxes; the world knows its attributes, so
they are written here. All are rounds `Q: …` and `A: …`, as the language model has read them.
"""

from collections.abc import Sequence

from gill_lite.family.seer import Said
from gill_lite.world.language import dialogue_with_topics, noun_phrase, pick, sentence
from gill_lite.world.scene import Scene, other_value

ROUNDS = 3  # of a conversation
LOOK = ("what do you see ?", "what is in the picture ?", "what is there ?")


def asked(rounds: Sequence[tuple[str, str]]) -> list[str]:
    """Questions and the answers to say, as items of a prompt."""
    return [item for question, answer in rounds for item in (f"Q: {question}\nA:", Said(answer))]


def conversation(scene: Scene, rng) -> list[str]:
    """Some rounds of the world's dialogues about the picture."""
    return asked(dialogue_with_topics(scene, rng)[0][:ROUNDS])


def description(scene: Scene, rng) -> list[str]:
    """A question for all there is, and a sentence that tells all six attributes."""
    return asked([(pick(rng, LOOK), sentence(scene.as_dict(), rng, ("",)))])


def reasoning(scene: Scene, rng) -> list[str]:
    """Is it all of this at once? A no says what it is instead."""
    true = {name: getattr(scene, name) for name in ("size", "color", "shape")}
    guess = dict(true)
    for name in true:
        if rng.random() < 0.25:
            guess[name] = other_value(rng, name, true[name])
    question, truth = f"is it {noun_phrase(guess)} ?", noun_phrase(true)
    answer = f"yes , it is {truth} ." if guess == true else f"no , it is {truth} ."
    return asked([(question, answer)])


KINDS = {"conversation": conversation, "description": description, "reasoning": reasoning}


def instruction(scene: Scene, rng) -> list[str]:
    """One of the three kinds."""
    return pick(rng, tuple(KINDS.values()))(scene, rng)
