"""The family: the systems GILL comes from and leads to, each small, in one world.

`SYSTEMS` is the catalogue, plain data: tables, the tree and the commands are made of it. A system
is one file of this room. Its `build(backbones, seed, root)` gives a `system.Member`, which trains
within the one budget of `system.py`, and is kept as safetensors with a JSON configuration.
"""

from dataclasses import dataclass, field
from typing import Any

from gill_lite.errors import GillError

# The tasks: show a picture to a language model, draw one from text, teach GILL's mapper otherwise;
# and what came before them.
SEE, DRAW, TEACH, BEFORE = "see", "draw", "teach", "before"


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
    task: str  # SEE, DRAW, TEACH or BEFORE
    module: str = ""  # where its `build` is; the name's own file unless given
    options: dict = field(default_factory=dict)  # of `build`
    parents: tuple[str, ...] = ()  # whose idea it takes up
    needs: tuple[str, ...] = ()  # systems whose trained weights it begins with
    joints: str = ""  # a method of `training.recipes`, where `gill-lite train` makes its weights
    seeds: tuple[int, ...] = (0,)  # that are compared, where their weights are there
    learned: bool = True  # False: it has no weights of its own

    @property
    def path(self) -> str:
        """Its module, importable."""
        return f"gill_lite.family.{self.module or self.name}"

    @property
    def trained_here(self) -> bool:
        """Whether `gill-lite family` makes its weights."""
        return self.learned and not self.joints


TWO, THREE = (0, 1), (0, 1, 2)  # seeds that are compared: what has room in 40 MB of weights
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
        task=SEE, module="blip", options={"bootstrap": False}, parents=("clip",), seeds=TWO,
    ),
    System(
        "blip", "BLIP, the web captioned and filtered", "Li et al. 2022", PAIRED,
        frozen="CLIP's picture tower", learns="one text transformer",
        loss="contrast + matching + next word", takes="a picture", gives="a caption, a match",
        task=SEE, parents=("blip_noisy",), seeds=TWO,
    ),
    System(
        "frozen", "Frozen", "Tsimpoukelli et al. 2021", SHOWN,
        frozen="the language model", learns="a picture tower from nothing", loss=LM_LOSS,
        takes="texts and pictures", gives="text", task=SEE, seeds=THREE,
    ),
    System(
        "limber", "LiMBeR", "Merullo et al. 2023", SHOWN,
        frozen="the language model, CLIP", learns="one linear layer", loss=LM_LOSS,
        takes="texts and pictures", gives="text", task=SEE, parents=("frozen", "clip"), seeds=THREE,
    ),
    System(
        "fromage", "FROMAGe", "Koh et al. 2023", SHOWN,
        frozen="the language model, CLIP", learns="linear layers, one row [RET]",
        loss=f"{LM_LOSS} + contrast", takes="texts and pictures", gives="text, retrieved pictures",
        task=SEE, module="joints", options={"method": "fromage"}, parents=("limber",),
        joints="fromage", seeds=THREE,
    ),
    System(
        "gill", "GILL", "Koh et al. 2023", SHOWN,
        frozen="the language model, CLIP, Stable Diffusion",
        learns="linear layers, rows [IMG], a mapper",
        loss=f"{LM_LOSS} + contrast + distance to text embeddings", takes="texts and pictures",
        gives="text, retrieved and drawn pictures", task=SEE, module="joints",
        options={"method": "gill"}, parents=("fromage", "sd"), joints="gill",
        seeds=THREE,
    ),
    System(
        "blip2", "BLIP-2", "Li et al. 2023", SHOWN,
        frozen="the language model, CLIP", learns="a Q-Former, then its way into the LM",
        loss="contrast + matching + next word, then next word", takes="texts and pictures",
        gives="text", task=SEE, parents=("blip", "frozen"), seeds=TWO,
    ),
    System(
        "minigpt4", "MiniGPT-4", "Zhu et al. 2023", SHOWN,
        frozen="the language model, CLIP, BLIP-2's Q-Former", learns="one linear layer",
        loss=f"{LM_LOSS}, then of a few answers", takes="texts and pictures", gives="text",
        task=SEE, parents=("blip2", "limber"), needs=("blip2",), seeds=TWO,
    ),
    System(
        "flamingo", "Flamingo", "Alayrac et al. 2022", SHOWN,
        frozen="the language model, CLIP", learns="a resampler, gated cross-attention",
        loss=LM_LOSS, takes="texts and pictures", gives="text", task=SEE, parents=("frozen",),
        seeds=TWO,
    ),
    System(
        "llava", "LLaVA", "Liu et al. 2023", SHOWN,
        frozen="CLIP; the language model at first", learns="a projector, then the LM, too",
        loss=f"{LM_LOSS}, then of instructed answers", takes="texts and pictures", gives="text",
        task=SEE, parents=("limber", "flamingo"),
    ),
)  # fmt: skip
LATENT = "from mixtures to diffusion"
DRAWN = "pictures drawn from text"
BEYOND = "beyond the lectures"
TEXT, PICTURE = "a text", "a picture"
EARLIER = (
    System(
        "mixture", "Mixture of Gaussians", "Dempster et al. 1977", LATENT,
        frozen="nothing", learns="means, covariances, weights", loss="likelihood, by EM",
        takes="numbers", gives="numbers like them", task=BEFORE, learned=False,
    ),
    System(
        "vae", "Variational autoencoder", "Kingma and Welling 2014", LATENT,
        frozen="nothing", learns="an encoder and a decoder", loss="reconstruction + KL: the ELBO",
        takes=PICTURE, gives="a picture like it", task=BEFORE, learned=False, parents=("mixture",),
    ),
    System(
        "ddpm", "Diffusion", "Ho et al. 2020", LATENT,
        frozen="the noising", learns="a denoiser", loss="squared error of the noise",
        takes="noise", gives=PICTURE, task=BEFORE, learned=False, parents=("vae",),
    ),
)  # fmt: skip
DRAWING = (
    System(
        "dalle", "DALL-E", "Ramesh et al. 2021", DRAWN,
        frozen="CLIP, which chooses", learns="a picture language, then a model of texts and codes",
        loss="reconstruction, then next word or code", takes=TEXT, gives=PICTURE, task=DRAW,
        parents=("vae", "clip"),
    ),
    System(
        "glide", "GLIDE", "Nichol et al. 2021", DRAWN,
        frozen="nothing", learns="a text transformer and a denoiser of pixels",
        loss="squared error of the picture", takes=TEXT, gives=PICTURE, task=DRAW,
        module="painters", options={"which": "glide"}, parents=("ddpm",), learned=False,
    ),
    System(
        "sd", "Latent diffusion", "Rombach et al. 2022", DRAWN,
        frozen="CLIP's text tower, an autoencoder", learns="a denoiser of latents",
        loss="squared error of the velocity", takes=TEXT, gives=PICTURE, task=DRAW,
        module="painters", options={"which": "sd"}, parents=("ddpm", "vae", "clip"), learned=False,
    ),
    System(
        "unclip", "unCLIP (DALL-E 2)", "Ramesh et al. 2022", DRAWN,
        frozen="CLIP, an autoencoder", learns="a prior of CLIP's vectors, a decoder of them",
        loss="squared errors of vector and velocity", takes=f"{TEXT}, or {PICTURE} to vary",
        gives=PICTURE, task=DRAW, parents=("glide", "clip", "dalle"),
    ),
)  # fmt: skip
MAPPED: dict[str, Any] = {
    "frozen": "the language model, CLIP, Stable Diffusion, visual tokens",
    "learns": "rows [IMG], a mapper", "takes": "texts and pictures", "gives": PICTURE,
    "task": TEACH, "module": "taught",
}  # fmt: skip
TAUGHT = (
    System(
        "taught_text", "GILL's mapper, by text", "Koh et al. 2023", SHOWN,
        loss="distance to text embeddings", options={"teacher": "text"}, parents=("gill",),
        seeds=THREE, **MAPPED,
    ),
    System(
        "taught_diffusion", "by diffusion, as MetaQuery", "Pan et al. 2025", BEYOND,
        loss="the denoiser's error on the picture", options={"teacher": "diffusion"},
        parents=("gill",), seeds=THREE, **MAPPED,
    ),
    System(
        "taught_both", "by both, as MiniGPT-5", "Zheng et al. 2023", BEYOND,
        loss="distance to text embeddings + denoiser's error", options={"teacher": "both"},
        parents=("gill",), seeds=THREE, **MAPPED,
    ),
    System(
        "taught_picture", "by CLIP's picture vector", "Sun et al. 2023", BEYOND,
        loss="distance to CLIP's vector", options={"teacher": "picture"},
        parents=("gill", "unclip"), seeds=THREE,
        **MAPPED | {"frozen": "the language model, CLIP, unCLIP's decoder, visual tokens"},
    ),
)  # fmt: skip
SYSTEMS = {system.name: system for system in (*EARLIER, *SEEING, *DRAWING, *TAUGHT)}


def has_code(name: str) -> System:
    """The system of this name, if it has a file here. Raises GillError naming those there are."""
    known = [name for name, system in SYSTEMS.items() if system.task != BEFORE]
    if name not in known:
        why = "is built in notebook 20 alone" if name in SYSTEMS else "is no system of the family"
        raise GillError(f"'{name}' {why}; known are {', '.join(known)}")
    return SYSTEMS[name]


def get_system(name: str) -> System:
    """The system one may train. Raises GillError for others."""
    system = has_code(name)
    if system.joints:
        raise GillError(f"the joints of {system.title} are made by `gill-lite train`, and ship")
    if not system.learned:
        raise GillError(f"{system.title} learns nothing here; there is nothing to train")
    return system
