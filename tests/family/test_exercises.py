"""The exercises of 20 to 25, as their cells stand: untouched, right, and wrong in several ways."""

import contextlib
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch.distributions import Normal, kl_divergence

from gill_lite.course import lab
from gill_lite.family import SYSTEMS, blip2, editing
from gill_lite.model.losses import diffusion_loss
from gill_lite.world.scene import ATTRIBUTES, Scene
from tests.helpers.places import ROOT

DRAW = torch.Generator().manual_seed(0)
X = torch.randn(4, 2, generator=DRAW)
LATENTS = torch.randn(1, 4, 3, generator=DRAW)
SAYS_NOTHING = SimpleNamespace(unet=lambda x, *_: SimpleNamespace(sample=0 * x))
GIVEN = {
    "torch": torch, "np": np, "lab": lab, "Normal": Normal, "kl_divergence": kl_divergence,
    "joint": X, "x": X, "m_step": lambda x, r: (r.mean(0), None, None), "blip2": blip2,
    "latents": LATENTS, "book": LATENTS[0, :2] + 0.1, "draw": DRAW, "ATTRIBUTES": ATTRIBUTES,
    "x0": LATENTS, "noise": -LATENTS, "alphas": torch.linspace(0.99, 0.0, 1000), "slots": None,
    "diffusion_loss": diffusion_loss, "pipeline": SAYS_NOTHING, "SYSTEMS": SYSTEMS,
    "DDIMScheduler": DDIMScheduler, "editing": editing, "Scene": Scene,
}  # fmt: skip


def shifted(joint):
    r = (joint - joint.amax(1, keepdim=True)).exp()
    return r / r.sum(1, keepdim=True)


def one_shift(r):
    return r / r.sum(1, keepdim=True)


def kl(mean_1, var_1, mean_2, var_2):
    return ((var_2 / var_1).log() + (var_1 + (mean_1 - mean_2) ** 2) / var_2 - 1).sum(1) / 2


def mask(corner):
    def sees(q, words):
        seen = torch.ones(q + words, q + words, dtype=torch.bool).tril()
        seen[:q, : {"own": q, "none": 0, "all": q + words}[corner]] = True
        return seen

    return sees


def far(latents, book):
    return book.square().sum(1) - 2 * latents @ book.T


def noised(x0, noise, strength, alphas):
    a = alphas[int(strength * len(alphas)) - 1]
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def judgement(before, after, asked, changed):
    others = [name for name in before if name != changed]
    kept = sum(after[name] == before[name] for name in others) / len(others)
    return float(after[changed] == asked[changed]), kept


def velocity(denoise, latents, noise, times, alphas):
    a = alphas[times].view(-1, 1, 1, 1)
    said = denoise(a.sqrt() * latents + (1 - a).sqrt() * noise, times)
    return (said - a.sqrt() * noise + (1 - a).sqrt() * latents).square().mean()


def ancestors(name, parents):
    every = set(parents[name]).union(*(ancestors(one, parents) for one in parents[name]))
    return sorted(every)


ANSWERS: dict[str, tuple] = {  # name -> notebook, the right answer, wrong ones
    "my_e_step": (20, shifted, lambda j: j.exp() / j.exp().sum(1, keepdim=True),
                  lambda j: j.softmax(0), lambda j: one_shift((j - j.max()).exp())),
    "my_kl": (20, kl, lambda m, v, *_: (m**2 + v - 1 - v.log()).sum(1) / 2,
              lambda *all_: kl(*all_) / all_[0].shape[1]),
    "my_gate": (21, lambda x, looked, a: x + np.tanh(a) * looked,
                lambda x, looked, a: x + a * looked, lambda x, looked, a: np.tanh(a) * looked),
    "my_who_sees": (21, mask("own"), mask("none"), mask("all")),
    "my_codes": (22, lambda latents, book: far(latents, book).argmin(1),
                 lambda latents, book: (latents @ book.T).argmax(1),
                 lambda latents, book: far(latents, book).argmin(0)),
    "my_best": (22, lambda pictures, s: pictures[s.argmax(0), range(s.shape[1])],
                lambda pictures, s: pictures[s.argmin(0), range(s.shape[1])],
                lambda pictures, s: pictures[0]),
    "my_noised": (23, noised, lambda x0, noise, s, _: (1 - s) * x0 + s * noise,
                  lambda x0, noise, s, alphas: noised(x0, noise, 1 - s, alphas)),
    "my_judgement": (23, judgement, lambda before, after, *all_: judgement(all_[0], after, *all_),
                     lambda before, after, *all_: judgement(before, after, after, all_[1])),
    "my_velocity_loss": (24, velocity, lambda *all_: velocity(*all_) * all_[1].numel(),
                         lambda denoise, x, noise, *_: (denoise(x, _[0]) - noise).square().mean()),
    "my_ancestors": (25, ancestors, lambda name, parents: sorted(parents[name]),
                     lambda name, parents: sorted(parents)),
}  # fmt: skip


def cell_of(name: str, number: int) -> str:
    """The exercise's cell, as it stands in the notebook."""
    [path] = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
    [source] = [source for source in cells if f"def {name}(" in source]
    return source


def said(source: str, answer=None) -> str:
    """What the cell prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(source, GIVEN | {"answer": answer})
    return out.getvalue()


@pytest.mark.parametrize("name", ANSWERS)
def test_a_cell_tells_untouched_right_and_wrong_answers(name):
    number, right, *wrong = ANSWERS[name]
    source = cell_of(name, number)
    assert said(source).startswith("not attempted")
    filled = re.sub(r"^(.*lab\.check\()", rf"{name} = answer\n\1", source, flags=re.MULTILINE)
    assert filled != source and said(filled, right).startswith("passed")
    for each in wrong:
        assert said(filled, each).startswith("case ")


def test_every_exercise_of_the_family_is_tried():
    found = set()
    for path in (ROOT / "notebooks").glob("2[0-5]_*.ipynb"):
        found |= set(re.findall(r"def (my_\w+)\(", path.read_text()))
    assert found == set(ANSWERS)
