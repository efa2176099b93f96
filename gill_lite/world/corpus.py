"""The text the language model reads: captions, stories and dialogues, and what people say of them.

A reader of natural text knows the present state at every sentence, because writers go on to
name things as they now are. So after any sentence a document may go on with key words, a plain
caption, or one of dozens of lead phrases and a sentence; none of them is bound to one spelling.
"""

from itertools import product

from gill_lite.world import language as lang
from gill_lite.world import telling
from gill_lite.world.scene import ATTRIBUTES, rng_for, sample_scene

SHOWN = (
    "the picture shows",
    "we see",
    "there is",
    "this is",
    "you can see",
    "i see",
    "the photo shows",
    "look at",
    "imagine",
)
LEADS = tuple(
    f"{a} {b}".strip()
    for a, b in product(
        ("", "so", "now", "in the end", "in other words ,", "then", "here"),
        SHOWN,
    )
)
PROBE_LEAD = "so the picture shows"
RESTATE = 0.25  # chance of a restatement after a sentence within a document
FRONTED = 0.4  # chance that one with a lead begins with where or when


def restatement(stated: dict, rng) -> str:
    """The present state told again: key words, a plain caption, or a lead phrase and a sentence."""
    kind = rng.random()
    if kind < telling.KEY_WORDS:
        return lang.tags(stated, rng)
    noun, phrases = lang.noun_phrase(stated), lang.place_phrases(stated, rng)
    told = " ".join([noun, *phrases]) + " ."
    if kind < telling.KEY_WORDS + telling.PLAIN:
        return told if rng.random() < 0.5 else lang.sentences(stated, rng)
    if phrases and rng.random() < FRONTED:
        return f"{' '.join(phrases)} , {lang.pick(rng, SHOWN)} {noun} ."
    return f"{lang.pick(rng, LEADS)} {told}"


def _with_restatements(parts, states, rng) -> str:
    text = []
    for i, (part, stated) in enumerate(zip(parts, states)):
        text.append(part)
        last = i == len(parts) - 1
        while stated and rng.random() < (0.6 if last else RESTATE):
            text.append(restatement(stated, rng))
    return " ".join(text)


def dialogue_states(scene, topics) -> list[dict]:
    """What is stated after each round."""
    stated, states = {}, []
    for name in topics:
        if name is not None:
            stated = {**stated, name: getattr(scene, name)}
        states.append(stated)
    return states


def document(key: int, captions_only: bool = False, seed: int = 0) -> str:
    """Training document number `key`: the same key and seed give the same text."""
    rng = rng_for("document", seed, key)
    kind = rng.random()
    if captions_only or kind < 0.25:
        scene = sample_scene(rng)
        stated = lang.mentioned(scene, rng)
        text = lang.caption(scene, rng, tuple(stated))
        return _with_restatements([text], [stated], rng)
    if kind < 0.65:
        told = lang.story(rng)
        return _with_restatements(told.captions, told.stated, rng)
    scene = sample_scene(rng)
    rounds, topics = lang.dialogue_with_topics(scene, rng)
    parts = [lang.dialogue_text([r]) for r in rounds]
    keep = int(rng.integers(1, len(parts) + 1)) if rng.random() < 0.3 else len(parts)
    return _with_restatements(parts[:keep], dialogue_states(scene, topics)[:keep], rng)


def vocabulary() -> list[str]:
    """Every word of the language, sorted."""
    words = {word for lead in LEADS for word in lead.split()}
    words.update(value for values in ATTRIBUTES.values() for value in values)
    for key in range(3000):
        words.update(document(key).lower().replace(":", " : ").split())
        words.update(lang.story(rng_for("vocabulary", key)).captions[1].split())
    return sorted(words)
