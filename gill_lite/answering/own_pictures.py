"""A folder of one's own pictures as an index beside joints, to be retrieved from.

Pictures are embedded a part at a time. A part stays under a name made of its files and the
joints, so that a later run, after a kill or with more pictures, takes up those that are as before.
"""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm

from gill_lite.answering.decision import DECISION
from gill_lite.answering.index import INDEX, ImageIndex
from gill_lite.datasets.images import SUFFIXES, open_image, squash
from gill_lite.datasets.reading import MAX_SKIPPED, Tally, Unusable, told
from gill_lite.errors import GillError
from gill_lite.files import only_one, tidy, write_bytes
from gill_lite.model.checkpoint import CONFIG, WEIGHTS
from gill_lite.provenance import sha256_of

PARTS, PART = ".index-parts", 64  # folder of what is done; pictures embedded together


def index_folder(
    responder, pictures, joints, directory, max_skipped: float = MAX_SKIPPED
) -> ImageIndex:
    """Embed all pictures in the folder `pictures` and below, as the joints of `responder` do.

    joints: their folder. directory: the same, or a new folder, which gets a copy of them; the
    index goes in there. Those that do not open are counted. Raises GillError where more than
    `max_skipped` of them do not, there are none, or `directory` has an index of others.
    """
    pictures, joints, directory = (Path(p).resolve() for p in (pictures, joints, directory))
    if not pictures.is_dir():
        raise GillError(f"there is no folder {pictures} to index; check the path")
    if (directory / INDEX).exists() and ImageIndex.load(directory / INDEX).folder != str(pictures):
        raise GillError(f"{directory / INDEX} is of other pictures; remove it or name another -o")
    with only_one(directory):
        tidy(directory, WEIGHTS, CONFIG, DECISION)
        if directory != joints:
            _copy_joints(joints, directory)
        tally, ids, rows = Tally(f"folder {pictures}", False, max_skipped), [], []
        for path, row in tally.usable(_embedded(responder, pictures, directory), _usable):
            ids.append(path.relative_to(pictures).as_posix())
            rows.append(row)
        index = ImageIndex.build(torch.stack(rows), ids)
        index.folder = str(pictures)
        for old in (*directory.glob(INDEX), *directory.glob(f".{INDEX}.*")):
            shutil.rmtree(old)
        index.save(directory / INDEX)
    skipped = f"; skipped {tally.skipped.total()} ({told(tally.skipped)})" if tally.skipped else ""
    print(f"{pictures}: {len(index)} of {tally.eligible} pictures indexed{skipped}")
    return index


def _copy_joints(joints: Path, directory: Path) -> None:
    for name in (WEIGHTS, CONFIG, DECISION):
        if (joints / name).is_file():
            write_bytes(directory / name, (joints / name).read_bytes())


def _usable(found: tuple[Path, Tensor | None]) -> tuple[Path, Tensor]:
    path, row = found
    if row is not None:
        return path, row
    try:
        open_image(path)
    except GillError as error:
        raise Unusable("unreadable image", str(error)) from error
    raise Unusable("unreadable image", f"{path} is a link out of the folder")


def _embedded(responder, pictures: Path, directory: Path) -> Iterator[tuple[Path, Tensor | None]]:
    """Path and embedding (P,) of each picture, None where it does not open."""
    found = sorted(p for p in pictures.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    parts = [found[i : i + PART] for i in range(0, len(found), PART)]
    tidy(directory / PARTS, "*")
    named = [directory / PARTS / f"{_stamp(paths, directory)}.safetensors" for paths in parts]
    for old in set((directory / PARTS).glob("*.safetensors")) - set(named):
        old.unlink()
    with tqdm(total=len(found), desc="index pictures", unit="picture") as bar:
        for paths, known in zip(parts, named, strict=True):
            rows = _kept(known)
            if rows is None:
                rows = _embed(responder, pictures, paths)
                write_bytes(known, save(rows))
            yield from ((path, rows.get(str(place))) for place, path in enumerate(paths))
            bar.update(len(paths))


def _stamp(paths: list[Path], directory: Path) -> str:
    """Changes with the files of a part and with the joints that embed them."""
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(f"{sha256_of(directory / WEIGHTS)}{stats}".encode()).hexdigest()


def _kept(path: Path) -> dict[str, Tensor] | None:
    try:
        with safe_open(path, framework="pt") as file:
            return {place: file.get_tensor(place) for place in file.keys()}
    except (OSError, SafetensorError):
        return None  # not done, or torn: it is made again


@torch.no_grad()
def _embed(responder, folder: Path, paths: list[Path]) -> dict[str, Tensor]:
    """Embeddings (P,) by the place in `paths`, of those that open."""
    images, size = {}, responder.profile.image_size
    for place, path in enumerate(paths):
        try:
            if path.resolve().is_relative_to(folder):
                images[str(place)] = squash(open_image(path), size)
        except GillError:
            continue
    if not images:
        return {}
    features = responder.gill.image_features(responder.prompts.pixel_values(images.values()))
    return dict(zip(images, features.float().cpu(), strict=True))
