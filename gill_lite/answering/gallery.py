"""What an answer can retrieve: an index of pictures, and the pictures themselves where they are.

An index names its pictures by id: of the mini world they are drawn, in the official one an id is
a URL, in others it may be a file in a folder. One that cannot be opened is passed over.
"""

import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
import torch
from PIL import Image
from requests.exceptions import BaseHTTPError
from torch import Tensor

from gill_lite.answering.answers import Retrieved
from gill_lite.answering.index import ImageIndex
from gill_lite.datasets.images import decode_image, open_image
from gill_lite.errors import GillError

DRAWN = 400  # pictures of the mini world that an answer can retrieve
SPARE = 8  # candidates beyond those asked for, should some not open
SECONDS = 5.0  # after which a URL counts as dead
MOST = 20 * 2**20  # bytes of a picture from a URL


class Gallery:
    """An index and its pictures: at hand by id, files of a folder, or behind the ids as URLs."""

    def __init__(
        self, index: ImageIndex, pictures: Mapping[str, Image.Image] | None = None, folder=None
    ):
        self.index, self.pictures = index, pictures or {}
        self.folder = Path(folder).resolve() if folder else None

    def find(
        self, query: Tensor, count: int, seen: Collection[str] = ()
    ) -> tuple[list[Retrieved], list[str]]:
        """The `count` best pictures for a query (P,) that open, and the better ids that do not.

        seen: ids not to be found again.
        """
        hits = self.index.search(query[None], count + SPARE, [seen] if seen else None)
        found: list[Retrieved] = []
        passed: list[str] = []
        todo = list(zip(hits.ids[0], hits.scores[0].tolist(), strict=False))
        while todo and len(found) < count:
            now, todo = todo[: count - len(found)], todo[count - len(found) :]
            with ThreadPoolExecutor(len(now)) as pool:
                images = list(pool.map(self.open, [name for name, _ in now]))
            for (name, score), image in zip(now, images, strict=True):
                if image is None:
                    passed.append(name)
                else:
                    found.append(Retrieved(image, score, name))
        return found, passed

    def open(self, name: str) -> Image.Image | None:
        """The picture of an id; None where it is not to be had."""
        if name in self.pictures:
            return self.pictures[name]
        try:
            if name.startswith(("http://", "https://")):
                return decode_image(_bytes_of(name), name)
            if self.folder is None:
                return None
            path = (self.folder / name).resolve()
            return open_image(path) if path.is_relative_to(self.folder) else None
        except (GillError, requests.RequestException, BaseHTTPError):
            return None


def _bytes_of(url: str) -> bytes:
    """What is behind a URL. Raises GillError where it is too slow or too much."""
    start, content = time.monotonic(), b""
    with requests.get(url, timeout=SECONDS, stream=True) as response:
        response.raise_for_status()
        read = getattr(response.raw, "read1", response.raw.read)  # an old urllib3 has none
        while piece := read(2**16, decode_content=True):  # what has come so far, without waiting
            content += piece
            if len(content) > MOST or time.monotonic() - start > SECONDS:
                raise GillError(f"{url} is too large or too slow")
    return content


@torch.no_grad()
def drawn_gallery(gill, prompts) -> Gallery:
    """Pictures of seen scenes of the mini world, as `gill` embeds them: common ones are many,
    as in every collection of photographs."""
    from gill_lite.world.render import render
    from gill_lite.world.scene import common_scene, rng_for

    rngs = [rng_for("gallery", i) for i in range(DRAWN)]
    pictures = [render(common_scene(rng), rng) for rng in rngs]
    features = gill.image_features(prompts.pixel_values(pictures))  # (N, P)
    index = ImageIndex.build(features, range(DRAWN))
    return Gallery(index, dict(zip(index.ids, pictures, strict=True)))
