"""The world's language: captions, five-sentence stories, ten-round dialogues; one word, one token.

Every function draws from the generator it is given and from nothing else. `stated` always
means the attributes the words so far pin down, as a dict from attribute to present value.
"""

from dataclasses import dataclass

from gill_lite.world import telling
from gill_lite.world.scene import ATTRIBUTES, Scene, is_novel, other_value, sample_scene

POSITION = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
PLACE = {
    "beach": "at the beach",
    "forest": "in the forest",
    "desert": "in the desert",
    "snow": "in the snow",
}
TIME = {"day": ("by day", "in the day"), "night": ("at night", "in the night")}
PRESENT = ("", "", "there is ", "we see ")
PAST = ("we saw ", "there was ", "we met ", "i found ")
BEGINNINGS = (
    "we went on a trip .",
    "it was our first trip .",
    "we had waited for this .",
    "my friends took me along .",
)
MENTION = 0.75  # chance that a caption mentions an attribute
ROUNDS = 10
PANELS = 5


def pick(rng, options):
    """One of `options`, uniformly (much faster than rng.choice)."""
    return options[int(rng.random() * len(options))]


def shuffled(rng, items) -> list:
    """The items in random order."""
    items = list(items)
    rng.shuffle(items)
    return items


def noun_phrase(stated: dict, article: str = "a") -> str:
    """ "a small red ball" from whatever of size, color and shape is stated."""
    words = [stated[name] for name in ("size", "color") if name in stated]
    return " ".join([article, *words, stated.get("shape", "thing")])


def place_phrases(stated: dict, rng) -> list[str]:
    """Position, place and time as phrases, in random order."""
    phrases = []
    if "position" in stated:
        phrases.append(POSITION[stated["position"]])
    if "place" in stated:
        phrases.append(PLACE[stated["place"]])
    if "time" in stated:
        phrases.append(pick(rng, TIME[stated["time"]]))
    return shuffled(rng, phrases)


def sentence(stated: dict, rng, leads=PRESENT) -> str:
    """One sentence that names every stated attribute."""
    noun, phrases = noun_phrase(stated), place_phrases(stated, rng)
    lead = pick(rng, leads)
    if phrases and rng.random() < 0.3:
        return f"{phrases[0]} , {' '.join([lead + noun, *phrases[1:]])} ."
    return " ".join([lead + noun, *phrases]) + " ."


def fact(name: str, value: str, rng, it: str = "it") -> str:
    """A sentence that states one attribute."""
    if name == "shape":
        return f"it is a {value} ."
    if name == "place":
        return f"{it} is {PLACE[value]} ."
    if name == "position":
        return f"{it} is {POSITION[value]} ."
    if name == "time":
        return pick(rng, (f"it is {value} .", f"it is {value} now ."))
    return f"{it} is {value} ."


def sentences(stated: dict, rng) -> str:
    """Several sentences that name every stated attribute once."""
    names = shuffled(rng, stated)
    first, rest = dict.fromkeys(["shape", *names[: int(rng.integers(1, 4))]]), []
    first = {name: stated[name] for name in first if name in stated}
    rest = [name for name in names if name not in first]
    it = pick(rng, ("it", f"the {stated.get('shape', 'thing')}"))
    return " ".join([sentence(first, rng), *(fact(name, stated[name], rng, it) for name in rest)])


def tags(stated: dict, rng) -> str:
    """Key words in random order: "night , red , ball , left ." """
    return " , ".join(stated[name] for name in shuffled(rng, stated)) + " ."


def mentioned(scene: Scene, rng) -> dict[str, str]:
    """The random subset of a scene's attributes that a caption mentions (two at least)."""
    while True:
        stated = {n: v for n, v in scene.as_dict().items() if rng.random() < MENTION}
        if len(stated) >= 2:
            return stated


def fragment(stated: dict, rng) -> str:
    """What alt-text often is: "red ball , at the beach ." """
    phrases = place_phrases(stated, rng)
    return pick(rng, (" ", " , ")).join([noun_phrase(stated, "").strip(), *phrases]) + " ."


def event(stated: dict, rng) -> str:
    """An attribute told as what happened, or the object doing something that no picture tells:
    "a ball that turned blue at the beach ." """
    names = [name for name in EVENTS if name in stated]
    if not names or rng.random() < 0.3:
        happened, rest = pick(rng, ("waiting", "smiling", "singing a song")), stated
    else:
        name = pick(rng, names)
        happened = pick(rng, EVENTS[name]).format(v=stated[name])
        rest = {n: v for n, v in stated.items() if n != name}
    return " ".join([noun_phrase(rest), happened, *place_phrases(rest, rng)]) + " ."


EVENTS = {
    "shape": ("that became a {v}", "that changed into a {v}"),
    "color": ("that turned {v}", "that became {v}", "painted {v}"),
    "size": ("that became {v}",),
    "position": ("that moved to the {v}", "that rolled to the {v}"),
    "place": ("that went to the {v}",),
}
FORMS = {"sentence": sentence, "fragment": fragment, "event": event}


def caption(scene: Scene, rng, attributes=None) -> str:
    """A caption that mentions `attributes`, by default a random subset."""
    stated = scene.as_dict()
    stated = mentioned(scene, rng) if attributes is None else {n: stated[n] for n in attributes}
    kind = rng.random()
    form = next(form for form, below in telling.CAPTIONS.items() if kind < below)
    return FORMS[form](stated, rng)


@dataclass(frozen=True)
class Story:
    """Five sentences, the scene after each, and what the words have stated by then."""

    captions: tuple[str, ...]
    scenes: tuple[Scene, ...]
    stated: tuple[dict[str, str], ...]


def _subject(stated: dict, rng) -> str:
    """ "it", or the object named by some of its present attributes, as later sentences do."""
    if rng.random() < telling.UNNAMED:
        return "it"
    kept = {n: v for n, v in stated.items() if n == "shape" or rng.random() < telling.EPITHETS}
    phrase = noun_phrase(kept, "the")
    return f"{phrase} {PLACE[kept['place']]}" if "place" in kept and rng.random() < 0.3 else phrase


def change(name: str, value: str, it: str, rng) -> str:
    """A later sentence after which an attribute has another value."""
    forms = {
        "shape": ("{it} changed into a {v} .", "{it} became a {v} ."),
        "color": ("{it} turned {v} .", "someone painted {it} {v} .", "{it} became {v} ."),
        "size": ("{it} became {v} .", "{it} turned {v} ."),
        "position": ("{it} moved to the {v} .", "{it} rolled to the {v} .", "{it} is now {p} ."),
        "place": ("{it} went to the {v} .", "{it} is now {p} .", "then {it} was {p} ."),
        "time": ("{v} came .", "now it was {v} .", "then came the {v} ."),
    }
    where = {**POSITION, **PLACE}.get(value, "")
    return pick(rng, forms[name]).format(it=it, v=value, p=where)


def _next_panel(scene, stated, rng, split):
    """One later sentence: a change, an addition, or nothing new."""
    kind, it = rng.random(), _subject(stated, rng)
    hidden = [name for name in ATTRIBUTES if name not in stated]
    if kind < telling.CHANGE:
        name = pick(rng, tuple(ATTRIBUTES))
        value = other_value(rng, name, getattr(scene, name))
        changed = scene.change(**{name: value})
        if split == "any" or not is_novel(changed):
            return change(name, value, it, rng), changed, {**stated, name: value}
    if kind < telling.CHANGE + telling.ADD and hidden:
        name = pick(rng, hidden)
        value = getattr(scene, name)
        return fact(name, value, rng, it), scene, {**stated, name: value}
    return pick(rng, telling.NARRATIVE).format(it=it), scene, stated


def _opening(scene: Scene, rng) -> tuple[str, dict]:
    """A story's first sentence, and what it states."""
    stated = {n: v for n, v in scene.as_dict().items() if rng.random() < telling.OPENING}
    if not stated:
        return pick(rng, BEGINNINGS), stated
    if stated.keys() <= {"place", "time"}:
        where = " ".join(place_phrases(stated, rng))
        return (f"we were {where} ." if "place" in stated else f"it was {scene.time} ."), stated
    return sentence(stated, rng, PAST), stated


def story(rng, split: str = "seen") -> Story:
    """Five sentences about one scene: the first opens, the next change, add, or say nothing.

    split: of every scene, "seen" or "any"; "novel" is of the last, the others are as they come.
    """
    if split == "novel":
        while not is_novel((told := story(rng, "any")).scenes[-1]):
            pass
        return told
    scene = sample_scene(rng, split)
    text, stated = _opening(scene, rng)
    captions, scenes, known = [text], [scene], [stated]
    for _ in range(PANELS - 1):
        text, scene, stated = _next_panel(scene, stated, rng, split)
        captions.append(text.replace(" is ", f" {telling.VERB} "))
        scenes.append(scene)
        known.append(stated)
    return Story(tuple(captions), tuple(scenes), tuple(known))


QUESTIONS = {
    "shape": ("what is it ?", "what shape is it ?"),
    "color": ("what color is it ?", "which color ?"),
    "size": ("is it small or big ?", "what size is it ?"),
    "position": ("where is it , left or right ?", "on which side is it ?"),
    "place": ("what place is this ?", "where are we ?"),
    "time": ("is it day or night ?", "what time is it ?"),
}
SMALL_TALK = (
    ("do you like it ?", "yes , i do ."),
    ("is it nice ?", "yes , very nice ."),
    ("does it smile ?", "yes ."),
    ("is it happy ?", "i think so ."),
    ("can you see it ?", "yes , i can ."),
    ("is it loud ?", "no , it is quiet ."),
)


def _answer(name: str, value: str, rng) -> str:
    forms = {
        "shape": ("a {v} .", "it is a {v} ."),
        "position": ("{p} .", "it is {p} .", "{v} ."),
        "place": ("the {v} .", "it is {p} ."),
    }.get(name, ("{v} .", "it is {v} ."))
    return pick(rng, forms).format(v=value, p={**POSITION, **PLACE}.get(value, ""))


def _round(scene: Scene, name: str, rng) -> tuple[str, str]:
    """A question and its answer; some ask by a guess, answered yes or no with the truth."""
    value = getattr(scene, name)
    if name in ("color", "size") and rng.random() < 0.4:
        guess = value if rng.random() < 0.5 else other_value(rng, name, value)
        if guess == value:
            return f"is it {guess} ?", pick(rng, ("yes .", f"yes , it is {value} ."))
        bare = len(ATTRIBUTES[name]) == 2 and rng.random() < 0.5
        return f"is it {guess} ?", "no ." if bare else f"no , it is {value} ."
    return pick(rng, QUESTIONS[name]), _answer(name, value, rng)


def dialogue_with_topics(scene: Scene, rng) -> tuple[tuple[tuple[str, str], ...], tuple]:
    """Ten rounds in random order and, for each, the attribute it is about (None: small talk)."""
    asked = [name for name in ATTRIBUTES if rng.random() < 0.9]
    topics = asked + [
        None if rng.random() < 0.7 else pick(rng, tuple(ATTRIBUTES))
        for _ in range(ROUNDS - len(asked))
    ]
    topics = shuffled(rng, topics)
    rounds = [pick(rng, SMALL_TALK) if t is None else _round(scene, t, rng) for t in topics]
    return tuple(rounds), tuple(topics)


def dialogue(scene: Scene, rng) -> tuple[tuple[str, str], ...]:
    """Ten question-and-answer rounds about one picture."""
    return dialogue_with_topics(scene, rng)[0]


def dialogue_text(rounds) -> str:
    """The rounds as the evaluation writes them: `Q: …` and `A: …`, joined by newlines."""
    return "\n".join(f"Q: {question}\nA: {answer}" for question, answer in rounds)
