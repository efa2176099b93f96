"""Scenes: six attributes, 1,152 combinations, a tenth of them never seen in training."""

import hashlib
from dataclasses import asdict, dataclass, replace

import numpy as np

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": ("ball", "box", "cone", "star"),
    "color": ("red", "yellow", "green", "blue", "purple", "white"),
    "size": ("small", "big"),
    "position": ("left", "middle", "right"),
    "place": ("beach", "forest", "desert", "snow"),
    "time": ("day", "night"),
}
NOVEL_SHARE = 0.1
ZIPF = 1.5  # exponent of the long tail, see `common_scene`


@dataclass(frozen=True)
class Scene:
    """What a picture shows. Field values come from ATTRIBUTES."""

    shape: str
    color: str
    size: str
    position: str
    place: str
    time: str

    def as_dict(self) -> dict[str, str]:
        """Attribute name to value, in the order of ATTRIBUTES."""
        return asdict(self)

    def labels(self) -> list[int]:
        """Index of each value within its attribute, in the order of ATTRIBUTES."""
        return [ATTRIBUTES[name].index(value) for name, value in asdict(self).items()]

    def change(self, **values: str) -> "Scene":
        """The same scene with some attributes changed."""
        return replace(self, **values)


def rng_for(*key) -> np.random.Generator:
    """A generator that depends on `key` alone: the same key gives the same bytes."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def is_novel(scene: Scene) -> bool:
    """Whether this combination is kept out of everything any model is trained on."""
    digest = hashlib.sha256(" ".join(scene.as_dict().values()).encode()).digest()
    return int.from_bytes(digest[:4], "little") / 2**32 < NOVEL_SHARE


def sample_scene(rng: np.random.Generator, split: str = "seen") -> Scene:
    """A random scene. `split` is "seen", "novel" or "any"."""
    while True:
        scene = Scene(*(str(rng.choice(values)) for values in ATTRIBUTES.values()))
        if split == "any" or is_novel(scene) == (split == "novel"):
            return scene


def common_scene(rng: np.random.Generator) -> Scene:
    """A seen scene as a world with a long tail has them: the values of an attribute, in their
    order, come up in Zipf's shares, 1 : 2^-1.5 : 3^-1.5 and so on."""
    while True:
        scene = Scene(*(str(rng.choice(v, p=_zipf(len(v)))) for v in ATTRIBUTES.values()))
        if not is_novel(scene):
            return scene


def _zipf(count: int) -> np.ndarray:
    shares = np.arange(1, count + 1) ** -ZIPF
    return shares / shares.sum()


def other_value(rng: np.random.Generator, name: str, value: str) -> str:
    """A value of attribute `name` that is not `value`."""
    return str(rng.choice([v for v in ATTRIBUTES[name] if v != value]))


def all_scenes(split: str = "any") -> list[Scene]:
    """Every scene of the split, in a fixed order."""
    from itertools import product

    scenes = [Scene(*values) for values in product(*ATTRIBUTES.values())]
    return [s for s in scenes if split == "any" or is_novel(s) == (split == "novel")]
