"""The training pictures of the mini world and their captions, by number; pictures held out."""

from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from gill_lite.errors import GillError
from gill_lite.files import only_one, tidy, whole_file
from gill_lite.world.language import caption
from gill_lite.world.render import render
from gill_lite.world.scene import ATTRIBUTES, Scene, is_novel, other_value, rng_for, sample_scene

GROUP = 4  # pictures that share all but one attribute
NUM_IMAGES = 20_000


def training_scene(index: int, seed: int = 0) -> Scene:
    """Scene of training picture `index`: groups of four, each a base and three near misses."""
    scene = sample_scene(rng_for("training scene", seed, index // GROUP))
    if index % GROUP == 0:
        return scene
    rng = rng_for("near miss", seed, index)
    while True:
        name = str(rng.choice(list(ATTRIBUTES)))
        near = scene.change(**{name: other_value(rng, name, getattr(scene, name))})
        if not is_novel(near):
            return near


def drawn(scene: Scene, *key) -> np.ndarray:
    """The picture of `scene` with details from `key`, as uint8 (3, 64, 64)."""
    return np.asarray(render(scene, rng_for("picture", *key))).transpose(2, 0, 1)


def training_images(work_dir: Path, seed: int = 0) -> np.ndarray:
    """All training pictures, uint8 (NUM_IMAGES, 3, 64, 64), drawn once and mapped from disk.

    Raises GillError where the file is damaged.
    """
    path = Path(work_dir) / f"images-{seed}.npy"
    with only_one(path, beside=True, wait=True):
        tidy(path.parent, path.name)
        if not path.exists():
            _draw_all(path, seed)
    try:
        return np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise GillError(f"{path} is damaged ({error}); remove it, and it is drawn anew") from error


def _draw_all(path: Path, seed: int) -> None:
    pictures = np.empty((NUM_IMAGES, 3, 64, 64), np.uint8)
    for i in tqdm(range(NUM_IMAGES), desc="drawing pictures"):
        pictures[i] = drawn(training_scene(i, seed), "train", seed, i)
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, pictures)


def held_out(
    count: int, split: str = "seen", key: str = "held out"
) -> tuple[list[Scene], torch.Tensor]:
    """`count` scenes and their pictures, (count, 3, 64, 64) in 0..1, that no stage trains on."""
    scenes = [sample_scene(rng_for(key, split, i), split) for i in range(count)]
    pictures = np.stack([drawn(scene, key, split, i) for i, scene in enumerate(scenes)])
    return scenes, torch.from_numpy(pictures).float() / 255


def signed_pixels(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (B, 3, H, W) to float in -1..1."""
    return torch.from_numpy(np.array(pictures)).float() / 127.5 - 1


def training_caption(index: int, epoch: int, seed: int = 0) -> str:
    """The caption of training picture `index` in this epoch."""
    return caption(training_scene(index, seed), rng_for("caption", seed, index, epoch))


def hash_seed(*key) -> int:
    """A 63-bit seed that depends on `key` alone."""
    return int(rng_for(*key).integers(2**63 - 1))
