"""What the training loop reads: (image, caption) pairs in an order that needs no memory.

Axes: B batch, N images, Dv CLIP's width.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from tqdm.auto import tqdm

from gill_lite.errors import GillError
from gill_lite.files import write_bytes
from gill_lite.model.backbones import fingerprint
from gill_lite.model.gill import pooled_output
from gill_lite.world.pictures import NUM_IMAGES, drawn, training_caption, training_scene


class Examples(NamedTuple):
    """What the data loader hands to a step."""

    ids: list[int]  # positions in the dataset
    images: Tensor  # (B, 3, H, W) or (B, Dv)
    captions: list[str]

    def rows(self, which: slice) -> "Examples":
        """Some of them."""
        return Examples(self.ids[which], self.images[which], self.captions[which])


class Read(NamedTuple):
    """One batch as a worker process hands it back, with what would be lost with the worker."""

    examples: Examples | None
    error: str = ""  # of a GillError, thrown again where the batch arrives
    opened: int = 0  # pictures, for the dataset's count
    damaged: Counter = Counter()


class Order:
    """Batches of (epoch, position), from `start` to `steps`; a pure function of the seed.

    Each epoch is its own permutation, and the incomplete batch at its end is dropped. Of each
    batch `own` rows are given.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, start: int, steps: int, own=slice(None)
    ):
        if size < batch_size:
            raise GillError(
                f"the dataset has {size} pairs, fewer than one batch of {batch_size}; give more, "
                "or a smaller --batch-size"
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.start, self.steps, self.own = start, steps, own
        self.epoch, self.permutation = -1, np.empty(0, dtype=int)

    def __len__(self) -> int:
        return max(0, self.steps - self.start)

    def __iter__(self):
        for step in range(self.start, self.steps):
            yield self.batch(step)[self.own]

    def batch(self, step: int) -> list[tuple[int, int]]:
        """The whole batch of a step."""
        epoch, place = divmod(step, self.size // self.batch_size)
        if self.epoch != epoch:
            rng = np.random.default_rng([self.seed, 0, epoch])
            self.epoch, self.permutation = epoch, rng.permutation(self.size)
        first = place * self.batch_size
        return [(epoch, i) for i in self.permutation[first : first + self.batch_size].tolist()]


class Loading:
    """Reads pairs of `dataset` and puts a batch together.

    `dataset[i]` is (image, caption); if it has `set_epoch(epoch)`, that is called first. An
    image is what CLIP's processor takes, or a row number of `image_features` (N, Dv).
    """

    def __init__(self, dataset, image_processor, image_features: Tensor | None):
        self.dataset, self.image_processor = dataset, image_processor
        self.image_features, self.epoch = image_features, -1

    def __getitem__(self, where: tuple[int, int]) -> tuple:
        epoch, i = where
        if epoch != self.epoch and hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        self.epoch = epoch
        return i, *self.dataset[i]

    def __len__(self) -> int:
        return len(self.dataset)

    def collate(self, pairs: list[tuple]) -> Examples:
        """Pairs (i, image, caption) as one batch."""
        ids, images, captions = (list(column) for column in zip(*pairs, strict=True))
        if self.image_features is None:
            pixels = self.image_processor(images=images, return_tensors="pt").pixel_values
            return Examples(ids, pixels, captions)
        return Examples(ids, self.image_features[torch.tensor(images)], captions)

    def __getitems__(self, places: list[tuple[int, int]]) -> Read:
        """One batch, as a data loader asks for it: here, or in one of its workers.

        A GillError thrown in a worker would arrive wrapped in the text of its traceback.
        """
        if get_worker_info() is None:
            return Read(self.collate([self[place] for place in places]))
        opened, damaged = self.counts()
        try:
            examples = self.collate([self[place] for place in places])
        except GillError as error:
            return Read(None, str(error))
        now_opened, now_damaged = self.counts()
        return Read(examples, "", now_opened - opened, now_damaged - damaged)

    def counts(self) -> tuple[int, Counter]:
        """Pictures that this process has opened, and how many were damaged, by reason."""
        return getattr(self.dataset, "opened", 0), Counter(getattr(self.dataset, "damaged", {}))

    def batches(self, order: Order, num_workers: int = 0) -> Iterator[Examples]:
        """Examples in `order`; draws nothing from torch's global generator."""
        loader = DataLoader(
            self,
            batch_sampler=order,
            collate_fn=_as_it_is,
            num_workers=num_workers,
            generator=torch.Generator(),
        )
        for read in loader:
            if read.error:
                raise GillError(read.error)
            if read.opened:
                self.dataset.count(read.opened, read.damaged)
            yield read.examples


def _as_it_is(read: Read) -> Read:
    return read


def image_features(backbones, images, batch_size: int = 256) -> Tensor:
    """CLIP's pooled output (N, Dv) of an iterable of images, to train on instead of pixels."""
    rows, images = [], iter(images)
    # a copy: the processor warns of an array that cannot be written to
    while waiting := [image.copy() for image in islice(images, batch_size)]:
        pixels = backbones.image_processor(images=waiting, return_tensors="pt").pixel_values
        rows.append(pooled_output(backbones.vision, pixels).float().cpu())
    return torch.cat(rows)  # (N, Dv)


class WorldPairs:
    """Pictures of the mini world by number, each with a new caption every epoch."""

    def __init__(self, size: int):
        self.size, self.epoch = size, 0

    def __len__(self) -> int:
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Captions of this epoch from now on."""
        self.epoch = epoch

    def __getitem__(self, i: int) -> tuple[int, str]:
        return i, training_caption(i, self.epoch)


def world_pairs(backbones, cache_dir) -> tuple[WorldPairs, Tensor]:
    """The mini world's training pairs and the pooled CLIP output of their pictures (N, Dv).

    The latter is kept in `cache_dir` under a name made from the weights, for other seeds.
    """
    pairs = WorldPairs(NUM_IMAGES)
    path = Path(cache_dir) / f"features-{fingerprint(backbones)}.safetensors"
    if path.exists():
        return pairs, _kept_features(path)
    numbers = tqdm(range(len(pairs)), desc="drawing pictures", unit="picture")
    pictures = (drawn(training_scene(i), "train", 0, i) for i in numbers)
    features = image_features(backbones, pictures)
    write_bytes(path, save({"features": features}))
    return pairs, features


def _kept_features(path: Path) -> Tensor:
    try:
        return load_file(path)["features"]
    except (SafetensorError, KeyError, OSError) as error:
        raise GillError(f"{path} is damaged ({error}); remove it, and it is made anew") from error
