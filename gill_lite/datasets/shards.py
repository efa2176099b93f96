"""webdataset shards as img2dataset writes them: tar files of `KEY.jpg`, `KEY.txt`, `KEY.json`.

Each shard is read through once, for the places of its pairs; these are kept beside it as
`SHARD.index.json` and used as long as the shard's size and time of change stay the same.
"""

import os
import re
import tarfile
import warnings
from collections import Counter
from glob import glob
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from gill_lite.datasets.images import SUFFIXES, decode_image, starts_like_a_picture
from gill_lite.datasets.pairs import Pairs
from gill_lite.datasets.reading import MAX_SKIPPED, Tally, Unusable
from gill_lite.errors import GillError
from gill_lite.files import GZIP, read_json, refuse_pointer, write_json

BLOCK = 512  # tar pads every member to a multiple of this, and ends in two empty ones
SHARDS = (".tar", ".tar.gz", ".tgz")  # the latter to be told what to do with them
TRUNCATED = "truncated shard"
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def read_shards(shards, strict: bool = False, max_skipped: float = MAX_SKIPPED) -> "ShardPairs":
    """The pairs of webdataset shards for training: item i is (PIL image, caption).

    shards: a folder, a pattern such as `cc3m/{00000..00331}.tar` or `cc3m/*.tar`, or a list.
    strict: a sample that cannot be used is an error instead of a count.
    Raises GillError naming a shard that is missing or no tar file, and where too much is
    unusable.
    """
    paths = find_shards(shards)
    tally = Tally(f"shards {shards}", strict, max_skipped)
    places = []
    for number, path in enumerate(tqdm(paths, desc="reading shards", unit="shard", delay=2)):
        index = _index(path)
        tally.eligible += index.eligible
        for reason, count, sentence in index.skipped:
            tally.skip(Unusable(reason, sentence), count)
        own = np.array(index.places, dtype=np.int64).reshape(-1, 4)
        places.append(np.insert(own, 0, number, axis=1))  # (pairs of the shard, 5)
    tally.check()
    return ShardPairs(paths, tally, np.concatenate(places))


class ShardPairs(Pairs):
    """Pairs in tar files; `places` (N, 5) are shard, image offset and size, caption likewise."""

    def __init__(self, paths: list[Path], tally: Tally, places: np.ndarray):
        super().__init__(tally, places)
        self.paths = paths

    def read(self, i: int) -> tuple[Image.Image, str]:
        """Pair i. Raises Unusable where its picture is damaged."""
        shard, *places = self.places[i].tolist()
        with open(self.paths[shard], "rb") as file:
            content, caption = (_read(file, *place) for place in (places[:2], places[2:]))
        try:
            name = f"the picture at byte {places[0]} of {self.paths[shard]}"
            return decode_image(content, name), caption.decode().strip()
        except GillError as error:
            raise Unusable("unreadable image", str(error)) from error


def find_shards(shards) -> list[Path]:
    """The tar files that a folder, a pattern or a list of them names; all must be there."""
    if isinstance(shards, list | tuple):
        return [path for each in shards for path in find_shards(each)]
    if Path(shards).is_dir():
        found = [name for end in SHARDS for name in sorted(glob(os.path.join(shards, f"*{end}")))]
        return find_shards(found or os.path.join(shards, f"*{SHARDS[0]}"))
    names = _expand(str(shards))
    paths = [Path(p) for name in names for p in (sorted(glob(name)) or [name])]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise GillError(
            f"{len(missing)} of {len(paths)} shards of {shards} are missing, the first is "
            f"{missing[0]}; check the pattern, name their folder, or fetch them"
        )
    return paths


def _expand(pattern: str) -> list[str]:
    """The names of `a/{00..12}.tar`, zeros kept; any other name is itself."""
    found = RANGE.search(pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    numbers = (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
    names = [pattern[: found.start()] + n + pattern[found.end() :] for n in numbers]
    return [name for each in names for name in _expand(each)]


# ---- the index of one shard --------------------------------------------------------------


class _Index(NamedTuple):
    eligible: int  # samples the shard holds or should hold
    skipped: list[list]  # reason, how many, a sentence about the first
    places: list[list[int]]  # image offset and size, caption offset and size


def _index(path: Path) -> _Index:
    """The index beside the shard, made anew where it is not the shard's."""
    beside, status = path.with_name(path.name + ".index.json"), path.stat()
    stamp = {"bytes": status.st_size, "changed_ns": status.st_mtime_ns}
    known = _json(beside)
    if known.get("shard") == stamp:
        return _Index(*known["index"])
    index = _read_index(path)
    try:
        write_json(beside, {"shard": stamp, "index": list(index)}, indent=None)
    except OSError as error:
        warnings.warn(f"the index {beside} cannot be kept ({error.strerror})", stacklevel=2)
    return index


def _read_index(path: Path) -> _Index:
    samples, whole = _samples(path)
    places, faults, seen = [], [], len(samples)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for number, (key, members) in enumerate(samples.items(), 1):
            cut = not whole and number == seen
            try:
                places.append(_place(file, members, f"sample {key} of {path}", size, cut))
            except Unusable as error:
                faults.append(error)
    counts, first = Counter(), {}
    for error in faults:
        counts[error.reason] += 1
        first.setdefault(error.reason, str(error))
    lost = 0 if whole else max(_written(path) - seen, TRUNCATED not in counts)
    if lost:
        counts[TRUNCATED] += lost
        first[TRUNCATED] = f"shard {path} is cut off behind its sample {seen}; fetch it again"
    return _Index(seen + lost, [[reason, n, first[reason]] for reason, n in counts.items()], places)


def _samples(path: Path) -> tuple[dict[str, dict[str, tarfile.TarInfo]], bool]:
    """Key -> suffix -> member, and whether the tar file has the end that tar files have."""
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    end = 0
    refuse_pointer(path)
    with open(path, "rb") as file:
        if file.read(2) == GZIP:
            raise GillError(
                f"shard {path} is compressed (gzip), and its pairs are read in any order; unpack "
                "it with gunzip"
            )
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                if member.isfile():
                    key, _, suffix = member.name.rpartition(".")
                    samples.setdefault(key, {})[f".{suffix.lower()}"] = member
    except tarfile.ReadError as error:
        if not end:
            raise GillError(f"shard {path} is not a tar file ({error}); fetch it again") from error
    with open(path, "rb") as file:
        return samples, _read(file, end, 2 * BLOCK) == bytes(2 * BLOCK)


def _place(file, members: dict, who: str, size: int, cut: bool) -> list[int]:
    """Where a sample's image and caption lie. Raises Unusable."""
    image = next((members[suffix] for suffix in SUFFIXES if suffix in members), None)
    caption = members.get(".txt")
    ends = [m.offset_data + m.size for m in (image, caption) if m is not None]
    if cut and (len(ends) < 2 or max(ends) > size):
        raise Unusable(TRUNCATED, f"{who} is cut off; fetch the shard again")
    if image is None or caption is None:
        lacks = "a picture" if image is None else "its caption (.txt)"
        raise Unusable("missing member", f"{who} lacks {lacks}")
    place = [image.offset_data, image.size, caption.offset_data, caption.size]
    try:
        text = _read(file, *place[2:]).decode()
    except UnicodeDecodeError as error:
        raise Unusable("unreadable caption", f"the caption of {who} is not UTF-8") from error
    if not text.strip():
        raise Unusable("empty caption", f"{who} has an empty caption")
    if not starts_like_a_picture(_read(file, place[0], min(16, image.size))):
        raise Unusable("unreadable image", f"the picture of {who} is none")
    return place


def _written(path: Path) -> int:
    """How many samples img2dataset noted for the shard in `00000_stats.json`, 0 without it."""
    return int(_json(path.with_name(f"{path.stem}_stats.json")).get("successes", 0))


def _json(path: Path) -> dict:
    """A file that need not be there nor be whole: then it says nothing."""
    try:
        return read_json(path)
    except GillError:
        return {}


def _read(file, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
