"""The joints that ship with the mini world, by the options of `gill-lite train` that make them.

A method of a table is a recipe: `gill` is the model of the paper, the others change one thing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gill_lite.files import DATA, shipped

SEEDS = (0, 1, 2)  # of GILL's joints where a table has many rows, of others that are compared
GILL_SEEDS = (0, 1, 2, 3, 4)  # of GILL: its own differences are small


@dataclass(frozen=True)
class Recipe:
    """Options of `gill-lite train`, the seeds that ship, and the language model they stand on."""

    options: dict = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    lm: str | None = None  # folder in data/lms; None: the mini world's own

    @property
    def lm_folder(self) -> Path | None:
        """Where the language model lies; None for the profile's."""
        return shipped(f"lms/{self.lm}/lm") if self.lm else None


RATE = 1e-2  # what they prefer: results/mapper_search.json
RECIPES = {
    "gill": Recipe(seeds=GILL_SEEDS),
    "gill300": Recipe({"steps": 300}),  # a short training, for notebook 09
    "linear": Recipe({"mapper": "linear", "learning_rate": RATE}, seeds=SEEDS),
    "mlp": Recipe({"mapper": "mlp", "learning_rate": RATE}, seeds=SEEDS),
    "encoder": Recipe({"mapper": "encoder", "learning_rate": RATE}, seeds=SEEDS),
    "fromage": Recipe({"mapper": "none", "num_img_tokens": 1}, seeds=SEEDS),
    "gill_lm1": Recipe(lm="1"),
    "gill_lm2": Recipe(lm="2"),
    "lm64": Recipe(lm="64x2"),
    "lm128": Recipe(lm="128x4"),
    "r1": Recipe({"num_img_tokens": 1}),
    "r2": Recipe({"num_img_tokens": 2}),
    "r4": Recipe({"num_img_tokens": 4}),
    "k1": Recipe({"num_visual_tokens": 1}),
    "k2": Recipe({"num_visual_tokens": 2}),
}


EVERY_LM = ("gill", "gill_lm1", "gill_lm2")  # of one recipe, from three seeds


def there(method: str) -> tuple[int, ...]:
    """The seeds of a recipe whose joints ship; none in an installed package without data."""
    found = [DATA / f"mini/joints/{method}-{seed}" for seed in RECIPES[method].seeds]
    return tuple(s for s, path in zip(RECIPES[method].seeds, found, strict=True) if path.is_dir())


def lms_there() -> tuple[str, ...]:
    """Of EVERY_LM, GILL on the mini world's own language model and on others that ship."""
    return tuple(name for name in EVERY_LM if name == "gill" or there(name))


def seeds_of(method: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds a method is evaluated with: of those asked for that it has, or the one it has."""
    own = RECIPES.get(method, Recipe()).seeds
    several = tuple(seed for seed in seeds if seed in own or method == "gill")
    return several if len(own) > 1 else own


def train_options(method: str, seed: int) -> dict:
    """Options of `train` for a recipe and a seed."""
    recipe = RECIPES[method]
    lm = {"lm": str(recipe.lm_folder)} if recipe.lm else {}
    return {**recipe.options, **lm, "seed": seed}


def train_command(method: str, seed: int) -> str:
    """The command that makes a method's joints, as one types it in the repository."""
    recipe = RECIPES[method]
    lm = {"lm": f"data/lms/{recipe.lm}/lm"} if recipe.lm else {}
    options = {**recipe.options, **lm, "seed": seed}
    typed = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
    return f"gill-lite train {typed}"
