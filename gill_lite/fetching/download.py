"""One URL into one file: continued where it was cut, refused where it is not what was asked for.

The bytes go into PATH.part; only a file that is whole and of its kind gets the name PATH.
"""

import itertools
import json
import math
import os
import shutil
import time
import zipfile
from pathlib import Path

import requests
from requests.exceptions import BaseHTTPError, ChunkedEncodingError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
from tqdm.auto import tqdm

from gill_lite import __version__
from gill_lite.datasets.images import open_image, starts_like_a_picture
from gill_lite.errors import GillError
from gill_lite.files import sha256

ATTEMPTS = 5  # in a row that bring no new byte
WAIT = wait_exponential(multiplier=0.5, max=30)  # seconds between them
TIMEOUT = (10, 60)  # seconds: to connect, between two pieces
PIECE = 1 << 16  # bytes; what a cut may cost
HEAD = 64  # bytes that tell the kind of a file
BUSY = (408, 425, 429, 500, 502, 503, 504)
GONE = "photo_unavailable"  # Flickr sends a picture of this name for one that was removed

KINDS = {
    "json": ("a JSON file", lambda head: head.lstrip()[:1] in (b"{", b"[")),
    "tsv": ("a TSV file", lambda head: b"\t" in head.split(b"\n")[0]),
    "torch": ("a PyTorch checkpoint", lambda head: head.startswith(b"PK\x03\x04")),
    "zip": ("a zip archive", lambda head: head.startswith(b"PK")),
    "tar": ("a tar.gz archive", lambda head: head.startswith(b"\x1f\x8b")),
    "picture": ("a picture", starts_like_a_picture),
}


class Refused(GillError):
    """The server has no such file, or sends something else; `reason` is short, for counting."""

    def __init__(self, reason: str, sentence: str):
        super().__init__(sentence)
        self.reason = reason


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids every download."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in ("1", "ON", "YES", "TRUE")


class _Cut(Exception):
    """The transfer stopped and may be tried again."""


def download(
    url: str, path, kind: str, *, sha256_expected: str | None = None, most: int = 0,
    seconds: float = math.inf, unfinished: dict | None = None, save=lambda: None,
    progress: bool = True, session=requests,
) -> str:  # fmt: skip
    """Download `url` to `path`, continuing a PATH.part that is there. Returns its sha256.

    kind: what it must be, one of KINDS. most: more bytes than these are refused (0: no bound).
    seconds: a file that takes longer is refused. session: what asks, see addresses.
    unfinished: PATH's last name -> the ETag that its .part belongs to; `save()` is called when
    it changes. Without one a .part of an earlier run is not continued.
    Raises Refused (nothing of the answer is kept) or GillError (the .part is kept; call again).
    """
    path = Path(path)
    if is_offline():
        raise GillError(f"HF_HUB_OFFLINE is set, so nothing is downloaded; missing: {path}")
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = {} if unfinished is None else unfinished
    _Transfer(url, part, kind, most, seconds, unfinished, save, progress, session).run()
    unfinished.pop(path.name, None)
    try:
        digest = sha256(part)
        if sha256_expected and digest != sha256_expected:
            raise Refused(
                "another sha256",
                f"{url} has the sha256 {digest[:12]}..., not {sha256_expected[:12]}... as known "
                f"before for {path}; nothing is kept: try again later, or see docs/data.md if "
                "the file was changed for good",
            )
        check_kind(part, kind, url)
        os.replace(part, path)
    except Refused:
        part.unlink()
        raise
    return digest


def check_kind(path: Path, kind: str, url: str) -> None:
    """Refuse a file that is not whole or not of its kind. Archives are read when unpacked."""
    try:
        if kind == "json":
            json.loads(path.read_bytes())
        elif kind == "picture":
            open_image(path)
        elif kind in ("zip", "torch") and not zipfile.is_zipfile(path):
            raise ValueError("its end is missing")
        elif kind == "tsv":
            path.read_bytes().decode()
    except (ValueError, GillError) as error:  # JSON and Unicode errors are ValueErrors
        raise Refused(
            f"not {KINDS[kind][0]}", f"{url} is not {KINDS[kind][0]}, or cut off: {error}"
        ) from error


class _Transfer:
    """The attempts at one file."""

    def __init__(
        self, url, part: Path, kind, most, seconds, unfinished, save, progress, session
    ):  # fmt: skip
        self.url, self.part, self.kind, self.most = url, part, kind, most
        self.unfinished, self.save, self.progress = unfinished, save, progress
        self.session, self.end = session, time.monotonic() + seconds  # when to give up
        self.name = part.stem  # without .part
        known = self.name in unfinished  # a part of unknown origin is not continued
        self.best = self.have if known else 0  # bytes of the furthest attempt

    @property
    def have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def run(self) -> None:
        """Attempts until the file is whole; only those that bring nothing new are counted."""
        retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=WAIT,
            retry=retry_if_exception_type(_Cut),
            reraise=True,
        )
        try:
            while not retrying(self.attempt):
                pass
        except _Cut as error:
            raise GillError(
                f"{self.url} cannot be downloaded now ({error}, {ATTEMPTS} times); {self.have} "
                f"bytes are kept in {self.part}: run the same command again"
            ) from error

    def attempt(self) -> bool:
        """True: whole. False: cut, but further than ever before. Raises _Cut otherwise."""
        self.check_time()
        try:
            with self.session.get(
                self.url, headers=self.headers(), stream=True, timeout=TIMEOUT
            ) as response:
                start = self.start(response)
                if start is not None:
                    self.receive(response, start)
            return True
        except (requests.ConnectionError, requests.Timeout) as error:
            self.cut(f"no connection: {type(error).__name__}", error)
        except (ChunkedEncodingError, BaseHTTPError) as error:  # read by requests, or by us
            self.cut("the connection was cut", error)
        except requests.RequestException as error:
            raise Refused("no such address", f"{self.url} cannot be asked for: {error}") from error
        except OSError as error:
            raise GillError(
                f"cannot write {self.part} ({error.strerror}); free some space or choose another "
                "--data-dir, then run the same command again"
            ) from error
        return False

    def cut(self, what: str, error: Exception) -> None:
        if self.have <= self.best:
            raise _Cut(what) from error
        self.best = self.have

    def headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity", "User-Agent": f"gill-lite/{__version__}"}
        known = self.unfinished.get(self.name)
        if known and self.have:
            headers |= {"Range": f"bytes={self.have}-", "If-Range": known}
        return headers

    def start(self, response) -> int | None:
        """The byte this answer begins at; None where nothing is missing."""
        status, have = response.status_code, self.have
        if status in BUSY:
            raise _Cut(f"the server answers {status}")
        if status == 416:  # nothing from `have` on: whole, or not the file this part is of
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return None
            self.part.unlink(missing_ok=True)
            raise _Cut("the server's file is shorter than before")
        if status == 206:
            span = response.headers.get("Content-Range", "")
            if not span.startswith(f"bytes {have}-") or _validator(response) not in (
                None, self.unfinished.get(self.name),
            ):  # fmt: skip
                self.part.unlink(missing_ok=True)
                raise _Cut("the server's file has changed")
            return have
        if status != 200:
            raise Refused(f"answer {status}", f"{self.url} is not there (answer {status})")
        if GONE in response.url:
            raise Refused("removed from Flickr", f"{self.url} was removed from Flickr")
        if "text/html" in response.headers.get("Content-Type", ""):
            self.refuse_page()
        return 0

    def refuse_page(self):
        what = KINDS[self.kind][0]
        raise Refused("a web page", f"{self.url} sends a web page, not {what}; nothing is kept")

    def receive(self, response, start: int) -> None:
        """Write the answer from byte `start` of the part on."""
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        if self.most and total and total > self.most:
            self.refuse_size(total)
        if total and shutil.disk_usage(self.part.parent).free < total - start:
            raise GillError(
                f"{self.part.parent} has no room for the {total - start} bytes still missing of "
                f"{self.url}; free some or choose another --data-dir"
            )
        pieces = self.pieces(response)
        if not start:
            pieces = self.begin(response, pieces)
        bar = tqdm(
            total=total, initial=start, unit="B", unit_scale=True, delay=2,
            desc=self.part.stem, disable=not self.progress,
        )  # fmt: skip
        with bar, open(self.part, "ab" if start else "wb") as file:
            for piece in pieces:
                file.write(piece)
                start += len(piece)
                bar.update(len(piece))
                if self.most and start > self.most or time.monotonic() > self.end:
                    break
        if self.most and start > self.most:
            self.part.unlink()
            self.refuse_size(start)
        self.check_time()
        if total and start < total:
            raise ChunkedEncodingError(f"{start} of {total} bytes")

    def pieces(self, response):
        """The answer's bytes; with a limit of time as they come, not in pieces of one size."""
        if self.end == math.inf:
            yield from response.iter_content(PIECE)
            return
        raw = response.raw
        yield raw.read(HEAD, decode_content=True)
        read = getattr(raw, "read1", raw.read)  # an old urllib3 has none
        yield from iter(lambda: read(PIECE, decode_content=True), b"")

    def begin(self, response, pieces):
        """Forget the old part and note which file the new one will be of; all its pieces."""
        first = next(pieces, b"")
        self.check_head(first)  # before the old part is given up
        self.part.unlink(missing_ok=True)
        self.unfinished.pop(self.name, None)
        if validator := _validator(response):
            self.unfinished[self.name] = validator
            self.save()
        return itertools.chain([first], pieces)

    def check_head(self, piece: bytes) -> None:
        what, is_kind = KINDS[self.kind]
        if piece.lstrip(b"\xef\xbb\xbf \t\r\n")[:5].lower() in (b"<!doc", b"<html", b"<head"):
            self.refuse_page()
        if not is_kind(piece[:4096]):
            raise Refused(f"not {what}", f"{self.url} does not begin as {what}; nothing is kept")

    def check_time(self) -> None:
        if time.monotonic() > self.end:
            self.part.unlink(missing_ok=True)
            raise Refused("too slow", f"{self.url} comes too slowly; nothing is kept")

    def refuse_size(self, size: int):
        raise Refused(
            "too large",
            f"{self.url} is larger than it may be ({size} bytes or more, at most {self.most}); "
            "nothing is kept",
        )


def _validator(response) -> str | None:
    """What tells this version of the file from others, as If-Range takes it."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")
