"""The family: the systems GILL comes from and leads to, each small, in one world.

`SYSTEMS` is the catalogue, plain data: tables, the tree and the commands are made of it. A system
is one file of this room. Its `build(backbones, seed, root)` gives a `system.Member`, which trains
within the one budget of `system.py`, and is kept as safetensors with a JSON configuration.
"""

from dataclasses import dataclass, field

from gill_lite.errors import GillError

SEE, DRAW = "see", "draw"  # the tasks: show a picture to a language model, draw one from text


@dataclass(frozen=True)
class System:
    """One system, as the tree shows it."""

    name: str  # what one types
    title: str
    source: str  # the paper
    lecture: str  # the part of the lectures that has it
    frozen: str
    learns: str
    loss: str
    takes: str
    gives: str
    task: str  # SEE or DRAW
    module: str = ""  # where its `build` is; the name's own file unless given
    options: dict = field(default_factory=dict)  # of `build`
    parents: tuple[str, ...] = ()  # whose idea it takes up
    needs: tuple[str, ...] = ()  # systems whose trained weights it begins with
    joints: str = ""  # a method of `training.recipes`, where `gill-lite train` makes its weights
    seeds: tuple[int, ...] = (0,)  # that ship
    learned: bool = True  # False: it has no weights of its own

    @property
    def path(self) -> str:
        """Its module, importable."""
        return f"gill_lite.family.{self.module or self.name}"

    @property
    def trained_here(self) -> bool:
        """Whether `gill-lite family` makes its weights."""
        return self.learned and not self.joints


SHOWN = "pictures shown to language models"
PAIRED = "pictures and texts compared"
LM_LOSS = "next word of the caption"

SEEING = (
    System(
        "clip", "CLIP alone", "Radford et al. 2021", PAIRED,
        frozen="everything", learns="nothing here", loss="contrast (when it was made)",
        takes="a picture, or captions", gives="the nearest caption", task=SEE, learned=False,
    ),
    System(
        "blip_noisy", "BLIP, the web as it is", "Li et al. 2022", PAIRED,
        frozen="CLIP's picture tower", learns="one text transformer",
        loss="contrast + matching + next word", takes="a picture", gives="a caption, a match",
        task=SEE, module="blip", options={"bootstrap": False}, parents=("clip",),
    ),
    System(
        "blip", "BLIP, the web captioned and filtered", "Li et al. 2022", PAIRED,
        frozen="CLIP's picture tower", learns="one text transformer",
        loss="contrast + matching + next word", takes="a picture", gives="a caption, a match",
        task=SEE, parents=("blip_noisy",),
    ),
    System(
        "frozen", "Frozen", "Tsimpoukelli et al. 2021", SHOWN,
        frozen="the language model", learns="a picture tower from nothing", loss=LM_LOSS,
        takes="texts and pictures", gives="text", task=SEE,
    ),
    System(
        "limber", "LiMBeR", "Merullo et al. 2023", SHOWN,
        frozen="the language model, CLIP", learns="one linear layer", loss=LM_LOSS,
        takes="texts and pictures", gives="text", task=SEE, parents=("frozen", "clip"),
    ),
    System(
        "fromage", "FROMAGe", "Koh et al. 2023", SHOWN,
        frozen="the language model, CLIP", learns="linear layers, one row [RET]",
        loss=f"{LM_LOSS} + contrast", takes="texts and pictures", gives="text, retrieved pictures",
        task=SEE, module="joints", options={"method": "fromage"}, parents=("limber",),
        joints="fromage", seeds=(0, 1, 2),
    ),
    System(
        "gill", "GILL", "Koh et al. 2023", SHOWN,
        frozen="the language model, CLIP, Stable Diffusion",
        learns="linear layers, rows [IMG], a mapper",
        loss=f"{LM_LOSS} + contrast + distance to text embeddings", takes="texts and pictures",
        gives="text, retrieved and drawn pictures", task=SEE, module="joints",
        options={"method": "gill"}, parents=("fromage",), joints="gill",
        seeds=(0, 1, 2),
    ),
    System(
        "blip2", "BLIP-2", "Li et al. 2023", SHOWN,
        frozen="the language model, CLIP", learns="a Q-Former, then its way into the LM",
        loss="contrast + matching + next word, then next word", takes="texts and pictures",
        gives="text", task=SEE, parents=("blip", "frozen"),
    ),
    System(
        "minigpt4", "MiniGPT-4", "Zhu et al. 2023", SHOWN,
        frozen="the language model, CLIP, BLIP-2's Q-Former", learns="one linear layer",
        loss=f"{LM_LOSS}, then of a few answers", takes="texts and pictures", gives="text",
        task=SEE, parents=("blip2", "limber"), needs=("blip2",),
    ),
    System(
        "flamingo", "Flamingo", "Alayrac et al. 2022", SHOWN,
        frozen="the language model, CLIP", learns="a resampler, gated cross-attention",
        loss=LM_LOSS, takes="texts and pictures", gives="text", task=SEE, parents=("frozen",),
    ),
    System(
        "llava", "LLaVA", "Liu et al. 2023", SHOWN,
        frozen="CLIP; the language model at first", learns="a projector, then the LM, too",
        loss=f"{LM_LOSS}, then of instructed answers", takes="texts and pictures", gives="text",
        task=SEE, parents=("limber", "minigpt4"),
    ),
)  # fmt: skip
DRAWING: tuple[System, ...] = ()
SYSTEMS = {system.name: system for system in (*SEEING, *DRAWING)}


def get_system(name: str) -> System:
    """The system one may train. Raises GillError naming those there are."""
    if name not in SYSTEMS:
        raise GillError(f"there is no system '{name}'; known are {', '.join(SYSTEMS)}")
    system = SYSTEMS[name]
    if system.joints:
        raise GillError(f"the joints of {system.title} are made by `gill-lite train`, and ship")
    if not system.learned:
        raise GillError(f"{system.title} learns nothing here; there is nothing to train")
    return system
