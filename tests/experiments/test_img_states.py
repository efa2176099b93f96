"""What probes read in the [IMG] states: a fact that stands there is found, and only where it is."""

import numpy as np
import pytest

from gill_lite.experiments import img_states
from gill_lite.world.scene import ATTRIBUTES


def test_the_same_scenes_are_told_and_shown():
    asked = img_states.ask(3, "x")
    assert asked.scenes == img_states.ask(5, "x").scenes[:3] != img_states.ask(3, "y").scenes
    for scene, (text,) in zip(asked.scenes, asked.prompts["text"], strict=True):
        assert all(value in text.split() for value in scene.as_dict().values())
    assert [picture.size for (picture,) in asked.prompts["picture"]] == [(64, 64)] * 3


@pytest.fixture
def made_up(monkeypatch):
    """States made up of the scenes: text and picture tell the shape in one direction, the colour
    in two, and nothing else."""

    def ask(count, key):
        asked = img_states.Asked.__new__(img_states.Asked, *real(count, key))
        rows = {"text": [], "picture": []}
        for number, scene in enumerate(asked.scenes):
            shape, color = (np.eye(6)[ATTRIBUTES[n].index(getattr(scene, n))]
                            for n in ("shape", "color"))  # fmt: skip
            noise = np.random.default_rng(number).normal(0, 0.1, (2, 18))
            rows["text"].append(np.concatenate([shape, color, 0 * color]) + noise[0])
            rows["picture"].append(np.concatenate([shape, 0 * color, color]) + noise[1])
        return asked._replace(prompts=rows)

    real = img_states.ask
    monkeypatch.setattr(img_states, "ask", ask)
    monkeypatch.setattr(img_states, "states", lambda _, rows: np.array(rows))


def test_a_shared_direction_is_told_from_one_of_its_own(made_up):
    found = img_states.probed(None, 300, 200)
    assert list(found.index) == [*ATTRIBUTES, "mean"]
    assert (found.loc["shape"] > 0.95).all(), "one direction: each probe reads both"
    for kind, other in (("text", "picture"), ("picture", "text")):
        assert found.loc["color", (kind, kind)] > 0.95
        assert found.loc["color", (kind, other)] < 0.5, "it is there, but elsewhere"
    assert found.loc["time"].mean() == pytest.approx(0.5, abs=0.1)
