"""Editing by talking: a chain of turns, each of which changes one thing and keeps the rest.

Draw; recolour; undo that; resize; move; make it night or day; replace the object. Every turn is a
sentence, and what each way of drawing is given of the turns before is what is compared. A turn is
judged by the probes: is the change made, and is everything else as it was in the picture before?
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gill_lite.answering.drawing import Drawing, example_seed, to_pil
from gill_lite.family import SYSTEMS
from gill_lite.family.drawing import judge_of
from gill_lite.family.table import Family
from gill_lite.world.language import change, sentence
from gill_lite.world.scene import ATTRIBUTES, Scene, is_novel, other_value, rng_for, sample_scene

TURNS = ("draw", "recolour", "undo", "resize", "move", "time of day", "replace")
CHANGES = ("color", "color", "size", "position", "time", "shape")  # of the turns behind the first
STRENGTHS = (0.4, 0.6, 0.8)  # of image-to-image: the share of the steps that are drawn anew


class Turn(NamedTuple):
    """One sentence, what the picture should show behind it, and what that changed."""

    said: str
    scene: Scene
    changed: str  # an attribute; "" for the first turn


class Chain(NamedTuple):
    """The turns of one conversation."""

    example_id: str
    turns: tuple[Turn, ...]

    def said(self, turn: int) -> list[str]:
        """All sentences up to and with a turn."""
        return [each.said for each in self.turns[: turn + 1]]


def chains(count: int) -> list[Chain]:
    """The first `count` chains; no scene of theirs is a novel one."""
    return [_chain(i) for i in range(count)]


def _chain(number: int) -> Chain:
    for attempt in range(100):
        rng = rng_for("family chain", number, attempt)
        scene = sample_scene(rng)
        turns = [Turn(sentence(scene.as_dict(), rng), scene, "")]
        for name in CHANGES:
            value = other_value(rng, name, getattr(scene, name))
            if len(turns) == TURNS.index("undo"):
                value = getattr(turns[0].scene, name)
            scene = scene.change(**{name: value})
            turns.append(Turn(change(name, value, "it", rng), scene, name))
        if not any(is_novel(turn.scene) for turn in turns):
            break
    return Chain(f"chain-{number}", tuple(turns))


# ---- ways to draw a turn: (chains, turn, the last pictures) -> pictures (B, 3, 64, 64) ----


def from_dialogue(member, some: Sequence[Chain], turn: int, last) -> Tensor:
    """Everything that was said; GILL reads it as a dialogue, Stable Diffusion as one text."""
    return member.draw([chain.said(turn) for chain in some], seeds_of(some))


def from_last_picture(member, some: Sequence[Chain], turn: int, last) -> Tensor:
    """The same, and the member's own last picture before the newest sentence."""
    if last is None:
        return from_dialogue(member, some, turn, last)
    rows = zip(some, last, strict=True)
    prompts = [[*c.said(turn)[:-1], to_pil(picture), c.turns[turn].said] for c, picture in rows]
    return member.draw(prompts, seeds_of(some))


def from_oracle(member, some: Sequence[Chain], turn: int, last) -> Tensor:
    """A caption of all that the picture should now show, by one who kept account."""
    texts = [
        [sentence(c.turns[turn].scene.as_dict(), rng_for("family oracle", c.example_id, turn))]
        for c in some
    ]
    return member.draw(texts, seeds_of(some))


def image_to_image(strength: float) -> Callable:
    """A way: noise on the last picture, taken out again under the newest sentence."""

    def way(member, some: Sequence[Chain], turn: int, last) -> Tensor:
        if last is None:
            return from_dialogue(member, some, turn, last)
        from diffusers import StableDiffusionImg2ImgPipeline

        pipeline, profile = member.backbones.pipeline, member.backbones.profile
        drawing = Drawing(member.backbones)
        redraw = StableDiffusionImg2ImgPipeline(
            **pipeline.components, requires_safety_checker=False
        )
        redraw.set_progress_bar_config(disable=True)
        embeds = drawing.text_embeds([chain.turns[turn].said for chain in some])
        return redraw(
            prompt_embeds=embeds,
            negative_prompt_embeds=drawing.no_prompt.expand_as(embeds),
            image=last,
            strength=strength,
            num_inference_steps=profile.num_inference_steps,
            guidance_scale=profile.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds_of(some)],
            output_type="pt",
        ).images.float()

    return way


class Way(NamedTuple):
    """How a turn is drawn, and by which system."""

    title: str
    system: str
    draw: Callable  # (member, chains, turn, the last pictures) -> pictures (B, 3, 64, 64)


WAYS = {
    "gill": Way("GILL, the dialogue", "gill", from_dialogue),
    "gill_picture": Way("GILL, and its last picture", "gill", from_last_picture),
    "sd": Way("Stable Diffusion, all words", "sd", from_dialogue),
    **{f"img2img_{round(100 * s)}": Way(f"image-to-image, strength {s}", "sd", image_to_image(s))
       for s in STRENGTHS},
    "oracle": Way("Stable Diffusion, prompt rewritten by an oracle", "sd", from_oracle),
}  # fmt: skip
LEARNED = {name for name, way in WAYS.items() if SYSTEMS[way.system].joints}  # trained with a seed


def seeds_of(some: Sequence[Chain]) -> list[int]:
    """The seed of each chain's noise, the same in all its turns: what is kept may stay."""
    return [example_seed(0, chain.example_id) for chain in some]


class Talker(NamedTuple):
    """A trained system and the way it is talked to."""

    member: Any
    way: Way

    def talk(self, some: Sequence[Chain]) -> list[Tensor]:
        """The pictures of every turn, (B, 3, 64, 64) each, one turn upon the other."""
        pictures: list[Tensor] = []
        for turn in range(len(TURNS)):
            last = pictures[-1] if pictures else None
            pictures.append(self.way.draw(self.member, some, turn, last))
        return pictures


class Talkers:
    """The ways as `table.compute` asks for a family: by name and seed."""

    def __init__(self, family: Family):
        self.family, self.backbones, self.weights = family, family.backbones, family.weights
        self.cells = [(name, seed) for name, way in WAYS.items()
                      for system, seed in family.cells if system == way.system]  # fmt: skip

    def __getitem__(self, cell: tuple[str, int]) -> Talker:
        """One of the ways, with the joints of that seed."""
        way = WAYS[cell[0]]
        return Talker(self.family[way.system, cell[1]], way)


def seen_in(judge, pictures: Tensor) -> list[Scene]:
    """The scenes that the probes read in pictures (B, 3, H, W)."""
    logits = judge.probes(pictures)
    best = {name: logits[name].argmax(1).tolist() for name in ATTRIBUTES}
    return [Scene(**{name: ATTRIBUTES[name][best[name][i]] for name in ATTRIBUTES})
            for i in range(len(pictures))]  # fmt: skip


def turn_marks(turn: int, chain: Chain, pictures: Sequence[Scene]) -> dict[str, float]:
    """What one turn did, from the scenes read in all pictures of a chain.

    made: the change is there; for the undo only where there was something to undo. kept: the share
    of the other attributes that are as in the picture before. whole: the share of all six that are
    as they should be by now.
    """
    name, asked, shown = TURNS[turn], chain.turns[turn], pictures[turn]
    marks = {f"whole_{name}": shared(shown, asked.scene, ATTRIBUTES)}
    if not turn:
        return marks
    others = [other for other in ATTRIBUTES if other != asked.changed]
    marks[f"kept_{name}"] = shared(shown, pictures[turn - 1], others)
    if name != "undo" or shared(pictures[turn - 1], chain.turns[turn - 1].scene, [asked.changed]):
        marks[f"made_{name}"] = shared(shown, asked.scene, [asked.changed])
    return marks


def shared(one: Scene, other: Scene, names: Iterable[str]) -> float:
    """The share of attributes in which two scenes agree."""
    agree = [getattr(one, name) == getattr(other, name) for name in names]
    return sum(agree) / len(agree)


def score(talker: Talker, some: Sequence[Chain], pool: Sequence[Chain]) -> list[dict]:
    """A row a chain: made_<turn>, kept_<turn>, whole_<turn>, and their means over the turns behind
    the first."""
    judge = judge_of(talker.member)
    read = [seen_in(judge, pictures) for pictures in talker.talk(some)]
    rows: list[dict] = []
    for i, chain in enumerate(some):
        row: dict[str, float] = {}
        for turn in range(len(TURNS)):
            row |= turn_marks(turn, chain, [scenes[i] for scenes in read])
        for what in ("made", "kept", "whole"):
            told = [row[key] for turn in TURNS[1:] if (key := f"{what}_{turn}") in row]
            row[what] = sum(told) / len(told)
        rows.append(row)
    return rows
