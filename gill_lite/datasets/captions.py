"""Image-caption pairs, official format: a TSV headed `caption<TAB>image` beside a folder."""

import codecs
import csv
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from gill_lite.datasets.images import is_url, open_image
from gill_lite.datasets.pairs import Pairs
from gill_lite.datasets.reading import MAX_SKIPPED, Reading, Tally, Unusable, collect
from gill_lite.errors import GillError
from gill_lite.files import name_on_disk, no_text, refuse_pointer

COLUMNS = ("caption", "image")
END = "\t\0"  # set behind a line: a column of its own, unless a quotation is open


@dataclass(frozen=True)
class CaptionPair:
    """One caption and its picture. `image` is the name the file gives."""

    caption: str
    image: str
    image_path: Path

    @property
    def example_id(self) -> str:
        """What seeds and score rows are keyed by."""
        return self.image


def read_captions(
    tsv_path, image_dir, strict: bool = False, max_skipped: float = MAX_SKIPPED
) -> Reading:
    """Read a two-column TSV. Quotes are read as pandas does, which the official trainer uses.

    strict: a row that cannot be used is an error instead of a count.
    Raises GillError naming the file where its format is broken or too much is unusable.
    """
    make = _pair_maker(tsv_path, image_dir)
    return collect(_rows(tsv_path), make, f"caption file {tsv_path}", strict, max_skipped)


class FilePairs(Pairs):
    """Pairs of a TSV and its image folder; `places` (N,) are the lines' byte offsets."""

    def __init__(self, tsv_path, image_dir, tally: Tally, places: np.ndarray):
        super().__init__(tally, places)
        self.tsv_path, self.image_dir = Path(tsv_path), Path(image_dir)
        self.columns = _columns(tsv_path)

    def read(self, i: int) -> tuple[Image.Image, str]:
        """Pair i. Raises Unusable where its picture is damaged or gone."""
        with open(self.tsv_path, "rb") as file:
            file.seek(int(self.places[i]))
            caption, image = self.columns.of(_fields(file, str(self.tsv_path)))
        try:
            return open_image(self.image_dir / name_on_disk(image)), caption
        except GillError as error:
            raise Unusable("unreadable image", str(error)) from error


def pairs_dataset(
    tsv_path, image_dir, strict: bool = False, max_skipped: float = MAX_SKIPPED
) -> FilePairs:
    """The pairs of a two-column TSV for training: item i is (PIL image, caption).

    The file is read once to see which rows are usable; 24 MB hold the places of three million.
    Parameters and errors as in `read_captions`.
    """
    make = _pair_maker(tsv_path, image_dir)
    tally = Tally(f"caption file {tsv_path}", strict, max_skipped)

    def offset(row: _Row) -> int:
        make(row)
        return row.offset

    places = np.fromiter(tally.usable(_rows(tsv_path), offset), dtype=np.int64)
    return FilePairs(tsv_path, image_dir, tally, places)


# ---- rows --------------------------------------------------------------------------------


class _Row(NamedTuple):
    line: int  # the header is line 1
    offset: int  # bytes
    pair: tuple[str, str] | None  # caption and image; None where there are not two columns


@dataclass(frozen=True)
class _Columns:
    count: int
    caption: int
    image: int

    def of(self, fields: list[str]) -> tuple[str, str]:
        return fields[self.caption], fields[self.image]

    def pick(self, fields: list[str]) -> tuple[str, str] | None:
        return self.of(fields) if len(fields) == self.count else None


def _rows(tsv_path) -> Iterator[_Row]:
    """Rows, streamed: the real file has three million. Blank lines are no rows."""
    columns = _columns(tsv_path)
    size = os.path.getsize(tsv_path)
    bar = tqdm(
        total=size, desc=f"reading {Path(tsv_path).name}", unit="B", unit_scale=True, delay=2
    )
    with open(tsv_path, "rb") as file, bar:
        number = 1 + file.readline().count(b"\n")
        while size > (offset := file.tell()):
            fields = _fields(file, f"line {number} of {tsv_path}")
            if fields:
                yield _Row(number, offset, columns.pick(fields))
            number += 1 + sum(field.count("\n") for field in fields)
            bar.update(file.tell() - offset)


def _fields(file, where: str) -> list[str]:
    """The columns of the next row; none where its line is blank.

    Within quotes a caption goes on in the next line, as pandas writes it. Where the quotes hold a
    tab as well, or end with the file, they are taken for a stray one.
    """
    line = file.readline()
    try:
        fields, opened = _split(line)
        while opened and "\t" not in opened and (more := file.readline()):
            line += more
            fields, opened = _split(line)
    except UnicodeDecodeError as error:
        raise GillError(f"{where} is not UTF-8 text ({error}); save it as UTF-8") from error
    except csv.Error as error:
        raise GillError(f"{where} cannot be read: {error}") from error
    if opened:
        raise GillError(f"{where} opens a quotation that it does not close; remove the stray quote")
    return fields


def _split(line: bytes) -> tuple[list[str], str]:
    """The columns of whole lines, and what stands in a quotation that they do not close."""
    text = line.decode().rstrip("\r\n")
    if not text.strip():
        return [], ""
    *fields, last = next(csv.reader([f"{text}{END}"], delimiter="\t"))
    return fields, "" if last == END[1:] else last.removesuffix(END) or " "


def _columns(tsv_path) -> _Columns:
    try:
        refuse_pointer(tsv_path)
        with open(tsv_path, "rb") as file:
            names, _ = _split(file.readline().removeprefix(codecs.BOM_UTF8))  # Excel writes one
    except FileNotFoundError as error:
        raise GillError(f"caption file {tsv_path} is missing; check the path") from error
    except UnicodeDecodeError as error:
        raise no_text(f"caption file {tsv_path}", error) from error
    except (OSError, csv.Error) as error:
        raise GillError(f"caption file {tsv_path} cannot be read: {error}") from error
    if not set(COLUMNS) <= set(names):
        raise GillError(
            f"caption file {tsv_path} must start with the line 'caption<TAB>image'; "
            f"it starts with {names or 'nothing'}"
        )
    return _Columns(len(names), *(names.index(name) for name in COLUMNS))


def _pair_maker(tsv_path, image_dir) -> Callable[[_Row], CaptionPair]:
    """A function that makes a row a pair, or raises Unusable."""
    folder = Path(image_dir)
    if not folder.is_dir():
        raise GillError(f"image folder {image_dir} is missing; check the path or fetch it")

    def make(row: _Row) -> CaptionPair:
        where = f"line {row.line} of {tsv_path}"
        if row.pair is None:
            raise Unusable("not two columns", f"{where} does not have two columns")
        caption, image = row.pair
        if not caption.strip():
            raise Unusable("empty caption", f"{where} has no caption")
        if is_url(image):
            raise Unusable(
                "image is a URL", f"{where} names {image}, a URL; download it and name the file"
            )
        if os.path.isabs(image) or os.path.normpath(image).split(os.sep)[0] == os.pardir:
            raise Unusable(
                "image outside the folder", f"{where} names {image}, outside {image_dir}"
            )
        if not os.path.isfile(path := os.path.join(folder, name_on_disk(image))):
            told = f"image {image} of {where} is missing in {image_dir}"
            raise Unusable("missing image", told, image)
        return CaptionPair(caption, image, Path(path))

    return make
