"""Answering: sixteen prompts of mixed length at once, beside one after another."""

import numpy as np

from benchmarks.record import faster, versus
from gill_lite.world.language import story
from gill_lite.world.render import render
from gill_lite.world.scene import rng_for

PROMPTS = 16
LEVELS = 2  # of 255, that a pixel may differ by: float noise behind the steps of the sampler


def prompts(count: int = PROMPTS) -> list[list]:
    """Beginnings of stories, one to five sentences long, with the pictures between them."""
    made = []
    for i in range(count):
        rng = rng_for("answering", i)
        told = story(rng)
        panels = list(zip(told.captions, told.scenes))[: 1 + i % 5]
        items = [item for text, scene in panels for item in (text, render(scene, rng))]
        made.append(items[:-1])  # a prompt ends with words
    return made


def same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert (one.text, one.retrieved_id) == (other.text, other.retrieved_id)
        difference = np.abs(np.int16(one.generated) - np.int16(other.generated))
        assert difference.max() <= LEVELS


def test_answering(benchmark, mini, quick):
    asked = prompts()
    names = [str(i) for i in range(PROMPTS)]

    def one(prompt, name):
        return mini.respond(prompt, example_id=name, force_image=True)

    versus(
        benchmark, f"answering {PROMPTS} prompts; reference: our own, one by one", "mini",
        lambda: mini.respond_batch(asked, example_ids=names, force_image=True),
        lambda: [one(p, n) for p, n in zip(asked, names, strict=True)],
        faster(4), same, rounds=1 if quick else 3,
    )  # fmt: skip
