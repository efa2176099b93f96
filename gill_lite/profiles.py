"""The two profiles: MINI (embedded, drawn world) and PAPER (the real models and data).

One dataclass, two instances. Every number of PAPER carries its source: the paper (Koh et
al., NeurIPS 2023) or, where the paper is silent, the official code's arguments.
"""

from dataclasses import dataclass, fields
from difflib import get_close_matches

from gill_lite.errors import GillError


@dataclass(frozen=True)
class Profile:
    """Sizes, model ids, training recipe and sampling settings of one profile."""

    name: str
    lm: str  # hub id, or folder under data/mini
    vision: str
    diffusion: str
    image_size: int  # pixels, what CLIP and the evaluation see
    num_visual_tokens: int  # k
    num_img_tokens: int  # r
    ret_dim: int  # P
    prompt_slots: int  # L
    mapper_width: int  # M
    mapper_layers: int  # encoder layers, and as many decoder layers
    mapper_heads: int
    mapper_ffn: int
    max_caption_tokens: int  # positions of a training caption, its [IMG] tokens included
    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    grad_clip: float
    warmup_steps: int
    lr_decay_every: int
    lr_decay: float
    batch_size: int
    steps: int
    join_probability: float  # two examples become one sequence
    lm_loss_weight: float  # of the LM loss in the retrieval and generation passes
    guidance_scale: float
    num_inference_steps: int
    seeds: tuple[int, ...] = (0, 1, 2)
    answer_ends: tuple[str, ...] = ()  # words with which an answer ends, beside a newline

    def replace(self, **changes) -> "Profile":
        """A copy with some fields changed. Raises GillError naming the nearest field."""
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise GillError(f"profile has no setting '{name}'{_nearest(name, known)}")
        return Profile(**{**{name: getattr(self, name) for name in known}, **changes})


PAPER = Profile(
    name="paper",
    lm="facebook/opt-6.7b",  # paper §3
    vision="openai/clip-vit-large-patch14",  # paper §3
    diffusion="stable-diffusion-v1-5/stable-diffusion-v1-5",  # paper §3; the id that still exists
    image_size=224,  # CLIP ViT-L/14's input
    num_visual_tokens=4,  # paper §3: k = 4
    num_img_tokens=8,  # paper §3: r = 8
    ret_dim=256,  # paper §3: p = 256
    prompt_slots=77,  # Stable Diffusion's text encoder
    mapper_width=512,  # paper §3: m = 512
    mapper_layers=4,  # official code
    mapper_heads=4,  # official code
    mapper_ffn=2048,  # official code
    max_caption_tokens=32,  # official code
    learning_rate=1e-3,  # paper §3
    betas=(0.9, 0.95),  # official code
    weight_decay=0.01,  # official code
    grad_clip=1.0,  # official code
    warmup_steps=2_000,  # official code
    lr_decay_every=10_000,  # official code
    lr_decay=0.1,  # official code
    batch_size=200,  # paper §3
    steps=20_000,  # paper §3
    join_probability=0.5,  # official code
    lm_loss_weight=0.5,  # official code
    guidance_scale=7.5,  # official evaluation
    num_inference_steps=50,  # official evaluation
)

# The hub's commits that the paper's ids mean here; a name that moves on changes nothing.
REVISIONS = {
    "facebook/opt-6.7b": "a45aa65bbeb77c1558bc99bedc6779195462dab0",
    "openai/clip-vit-large-patch14": "32bd64288804d66eefd0ccbe215aa642df71cc41",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
}

# What of them is downloaded, in 10**6 bytes.
DOWNLOADS = {
    "facebook/opt-6.7b": 13_320,
    "openai/clip-vit-large-patch14": 1_720,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": 4_270,
}

MINI = PAPER.replace(
    name="mini",
    lm="lm",
    vision="clip",
    diffusion="diffusion",
    image_size=64,
    ret_dim=64,
    mapper_width=128,
    mapper_layers=3,
    mapper_ffn=512,
    max_caption_tokens=77,
    warmup_steps=100,
    lr_decay_every=600,
    batch_size=48,
    steps=900,
    guidance_scale=3.0,
    num_inference_steps=5,  # CLIP similarity within 0.01 of 25 steps: docs/benchmarks.md
    answer_ends=(".", "!"),  # its texts know no newline; "?" asks, and the answer follows
)

PROFILES = {profile.name: profile for profile in (MINI, PAPER)}


def get_profile(name: str) -> Profile:
    """The profile called `name`. Raises GillError naming the nearest known profile."""
    if name not in PROFILES:
        raise GillError(f"unknown profile '{name}'{_nearest(name, PROFILES)}")
    return PROFILES[name]


def _nearest(name: str, known) -> str:
    known = list(known)
    close = get_close_matches(str(name), known, n=1, cutoff=0.3)
    return f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(known)}"
