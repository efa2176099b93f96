"""The task of all that draw: full captions of seen and novel scenes, and stories of five sentences.

One example is a held-out scene, its true picture, and a prompt that ends in it. A story is asked
with its sentences alone, and with the four pictures before the last. Who reads text alone is given
the sentences joined. Axes: B pictures, N examples, P width of CLIP's space.
"""

import time
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gill_lite.answering.drawing import example_seed, from_pil
from gill_lite.answering.prompts import checked
from gill_lite.errors import GillError
from gill_lite.evaluation.metrics import Judge, clip_similarity, frechet_distance
from gill_lite.evaluation.tasks import DRAWINGS
from gill_lite.world.language import sentence, story
from gill_lite.world.pictures import held_out
from gill_lite.world.render import render
from gill_lite.world.scene import ATTRIBUTES, Scene, rng_for

SPLITS = DRAWINGS.contexts
TIMED = 8  # pictures, one by one


class Example(NamedTuple):
    """What is to be drawn, and from what."""

    example_id: str
    scene: Scene
    picture: Tensor  # (3, 64, 64) in 0..1
    prompt: list  # of str and PIL images


def examples(split: str, count: int) -> list[Example]:
    """The first `count` examples of one of SPLITS; a smaller number gives the same first ones.

    Raises GillError for another split."""
    if split not in SPLITS:
        raise GillError(f"split '{split}' is none of {', '.join(SPLITS)}")
    if split.startswith("story"):
        return [_told(split, i) for i in range(count)]
    scenes, pictures = held_out(count, split, key="family")
    texts = [sentence(s.as_dict(), rng_for("family full", split, i)) for i, s in enumerate(scenes)]
    rows = zip(scenes, pictures, texts, strict=True)
    return [Example(f"{split}-{i}", s, p, [text]) for i, (s, p, text) in enumerate(rows)]


def _told(split: str, number: int) -> Example:
    told = story(rng_for("family story", number))
    shown = [render(scene, rng_for("family panel", number, i))
             for i, scene in enumerate(told.scenes)]  # fmt: skip
    prompt: list = list(told.captions)
    if split == "story_pictures":
        prompt = [item for pair in zip(told.captions, shown) for item in pair][:-1]
    return Example(f"{split}-{number}", told.scenes[-1], from_pil(shown[-1]), prompt)


def joined(prompts: Sequence) -> list[str]:
    """The words of each prompt as one text, for those who read text alone."""
    return [" ".join(x for x in checked(prompt) if isinstance(x, str)) for prompt in prompts]


def drawn(member, chosen: Sequence[Example]) -> Tensor:
    """A picture an example, (B, 3, 64, 64) in 0..1; its noise depends on the example alone."""
    seeds = [example_seed(0, example.example_id) for example in chosen]
    return member.draw([example.prompt for example in chosen], seeds)


@cache
def judge_of(member) -> Judge:
    """CLIP and the probes, over the member's backbones."""
    return Judge(member.backbones, ("attribute_accuracy",))


def score(member, chosen: Sequence[Example], pool: Sequence[Example]) -> list[dict]:
    """Attribute accuracy, CLIP similarity and right_<attribute> of each of the chosen examples."""
    judge, pictures = judge_of(member), drawn(member, chosen)
    found = judge.attributes(pictures, [example.scene for example in chosen])
    true = judge.features([example.picture for example in chosen])
    near = clip_similarity(judge.features(list(pictures)), true)  # (B,)
    return [
        {"attribute_accuracy": float(found.mean[i]), "clip_similarity": float(near[i])}
        | {f"right_{name}": float(found.per_attribute[name][i]) for name in ATTRIBUTES}
        for i in range(len(chosen))
    ]


def frechet(member, chosen: Sequence[Example], batch_size: int = 16) -> float:
    """Fréchet distance of the pictures a system draws to the true ones, in CLIP's space."""
    judge, parts = judge_of(member), range(0, len(chosen), batch_size)
    made = [judge.features(list(drawn(member, chosen[i : i + batch_size]))) for i in parts]
    true = judge.features([example.picture for example in chosen])
    return frechet_distance(torch.cat(made), true)


def seconds_a_picture(member, chosen: Sequence[Example]) -> float:
    """Median time of one picture alone."""
    times = []
    for example in chosen[:TIMED]:
        began = time.perf_counter()
        drawn(member, [example])
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def facts(member, chosen: Sequence[Example]) -> dict:
    """What is measured once of a system, for `table.results`."""
    return {
        "seconds a picture": round(seconds_a_picture(member, chosen), 3),
        "Fréchet distance": round(frechet(member, chosen), 3),
    }
