"""The task of all that see: captions, questions, a later sentence, two pictures, two examples.

One example is a held-out scene and its picture, with what is asked of it, drawn from its number.
A caption's attributes count as right among those it names; in an answer the first word that fits.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gill_lite.family.seer import Said
from gill_lite.world.corpus import PROBE_LEAD
from gill_lite.world.language import caption, change, story
from gill_lite.world.pictures import held_out
from gill_lite.world.scene import ATTRIBUTES, Scene, other_value, rng_for

SPLITS = ("seen", "novel")
STORIES, TIMED = 100, 10


class Example(NamedTuple):
    """A held-out picture and what is asked of it."""

    example_id: str
    scene: Scene
    picture: Tensor  # (3, 64, 64), as CLIP's processor gives it
    caption: str
    guess: str  # a color, right or wrong
    changed: tuple[str, str]  # attribute, new value
    later: str  # the sentence that says so
    others: tuple[tuple[Scene, Tensor], ...]  # two more scenes and their pictures


def examples(split: str, count: int) -> list[Example]:
    """The first `count` examples of a split; a smaller number gives the same first ones."""
    scenes, pictures = held_out(count, split, key="family")
    shots, shown = held_out(2 * count, "seen", key="family examples")
    pictures, shown = pictures * 2 - 1, shown * 2 - 1
    found = []
    for i, (scene, picture) in enumerate(zip(scenes, pictures, strict=True)):
        rng = rng_for("family example", split, i)
        told = caption(scene, rng)
        guess = scene.color if rng.random() < 0.5 else other_value(rng, "color", scene.color)
        name = str(rng.choice(list(ATTRIBUTES)))
        value = other_value(rng, name, getattr(scene, name))
        others = tuple((shots[j], shown[j]) for j in (2 * i, 2 * i + 1))
        later = change(name, value, "it", rng)
        found.append(
            Example(f"{split}-{i}", scene, picture, told, guess, (name, value), later, others)
        )
    return found


def prompts(example: Example) -> dict[str, list]:
    """What a system reads, by what is measured with it."""
    picture, first = example.picture, example.others[0][1]
    return {
        "caption": [picture],
        "yes_no": [picture, f"Q: is it {example.guess} ?\nA:"],
        "which": [picture, "Q: what color is it ?\nA:"],
        "where": [picture, "Q: where is it , left or right ?\nA:"],
        "later": [picture, f"{example.later} {PROBE_LEAD}"],
        "second": [first, picture],
    }


def shots(example: Example) -> tuple[list, list]:
    """The picture alone, and behind two others with their colors; then the color is to be said."""
    (one, first), (two, second) = example.others
    asked = [example.picture, Said(example.scene.color), "."]
    return asked, [first, f"{one.color} .", second, f"{two.color} .", *asked]


def named(text: str) -> dict[str, str]:
    """The attributes that a text names, each by its first word."""
    words = {value: name for name, values in ATTRIBUTES.items() for value in values}
    found: dict[str, str] = {}
    for word in text.split():
        if word in words:
            found.setdefault(words[word], word)
    return found


def share(marks: Sequence[bool]) -> float | None:
    """Share of true marks; None of none."""
    return float(np.mean(marks)) if len(marks) else None


def marks(example: Example, said: dict[str, str]) -> dict[str, float | None]:
    """The example's scores from what a system said to its prompts."""
    scene = example.scene.as_dict()
    told = {kind: named(text) for kind, text in said.items()}
    scores = {
        "right": share([value == scene[n] for n, value in told["caption"].items()]),
        "named": len(told["caption"]) / len(ATTRIBUTES),
    }
    if "yes_no" in said:
        truth = "yes" if example.guess == scene["color"] else "no"
        name, value = example.changed
        other = example.others[0][0].as_dict()
        scores |= {
            "yes_no": float(said["yes_no"].split()[:1] == [truth]),
            "which": float(told["which"].get("color") == scene["color"]),
            "where": float(told["where"].get("position") == scene["position"]),
            "change": float(told["later"].get(name) == value),
            "stale": float(told["later"].get(name) == scene[name]),
            "kept": share([v == scene[n] for n, v in told["later"].items() if n != name]),
            "second": share(
                [v == scene[n] for n, v in told["second"].items() if other[n] != scene[n]]
            ),
        }
    return scores


@torch.no_grad()
def shot_marks(member, example: Example) -> dict[str, float]:
    """How surely the color is said next, in nats, without and with two examples."""
    none, two = (-float(member.said_loss([row])) for row in shots(example))
    return {"shots_0": none, "shots_2": two, "shots": two - none}


def score(member, chosen: Sequence[Example], pool: Sequence[Example]) -> list[dict]:
    """A row of measures (`numbers.SEEING`, R@1) an example; None where there is nothing to judge.

    pool: all of the split, among whose pictures captions are found by systems that compare.
    """
    asked = [prompts(example) for example in chosen]
    kinds = member.reads if hasattr(member, "reads") else tuple(asked[0])
    said = {kind: member.respond([one[kind] for one in asked]) for kind in kinds}
    rows = [
        marks(example, {kind: said[kind][i] for kind in kinds}) for i, example in enumerate(chosen)
    ]
    if hasattr(member, "said_loss"):
        for row, example in zip(rows, chosen, strict=True):
            row |= shot_marks(member, example)
    if hasattr(member, "similarity"):
        pictures = torch.stack([example.picture for example in pool])
        found = member.similarity([example.caption for example in chosen], pictures).argmax(1)
        own = {example.example_id: i for i, example in enumerate(pool)}
        for row, example, place in zip(rows, chosen, found.tolist(), strict=True):
            row["recall_at_1"] = float(place == own[example.example_id])
    return rows


@torch.no_grad()
def story_loss(member, count: int = STORIES) -> float:
    """Cross-entropy a word of held-out stories, without pictures: is the LM still itself?"""
    texts = [" ".join(story(rng_for("family story", i)).captions) for i in range(count)]
    return float(member.said_loss([[Said(text)] for text in texts]))


def milliseconds(member) -> float:
    """Median time of one caption."""
    times = []
    for example in examples("seen", TIMED):
        began = time.perf_counter()
        member.respond([[example.picture]])
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))


def facts(member) -> dict:
    """What is measured once of a system, beside the examples."""
    told = {"milliseconds": round(milliseconds(member), 1)}
    if hasattr(member, "said_loss"):
        told["story_loss"] = round(story_loss(member), 4)
    return told
