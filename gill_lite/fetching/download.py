"""One URL into one file, whole and of its kind, or one sentence why not.

Half a file is neither kept nor continued: a transfer that is cut is begun again, ATTEMPTS times
in all.
"""

import json
import math
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import requests
from requests.exceptions import ChunkedEncodingError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
from tqdm.auto import tqdm

from gill_lite import __version__
from gill_lite.datasets.images import open_image, starts_like_a_picture
from gill_lite.errors import GillError
from gill_lite.fetching.network import AGAIN, cause
from gill_lite.files import POINTER, sha256, whole_file

ATTEMPTS = 5
WAIT = wait_exponential(multiplier=0.5, max=30)  # seconds between them
TIMEOUT = (10, 60)  # seconds: to connect, between two pieces
PIECE = 1 << 16  # bytes
HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"gill-lite/{__version__}"}
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


class Busy(requests.ConnectionError):
    """The server asks for patience."""


CUT = (requests.ConnectionError, requests.Timeout, ChunkedEncodingError)  # may be tried again


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids every download."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def refuse_offline(missing: list[str]) -> None:
    """Raise GillError naming what is missing, where there is any and no download is allowed."""
    if missing and is_offline():
        more = f" and {len(missing) - 9} more" if len(missing) > 9 else ""
        raise GillError(
            f"HF_HUB_OFFLINE is set, so nothing is downloaded; missing: {', '.join(missing[:9])}"
            f"{more}; unset it where there is a network, or copy the data folder and HF_HOME "
            "from there"
        )


def download(
    url: str, path, kind: str, *, known_sha256: str | None = None, most: float = math.inf,
    seconds: float = math.inf, check_url: Callable[[str], None] = lambda url: None,
    progress: bool = True,
) -> str:  # fmt: skip
    """Download `url` to `path`. Returns its sha256.

    kind: what it must be, one of KINDS. most: more bytes than these are refused. seconds: a file
    that takes longer is refused. check_url: raises Refused for an address that is not to be asked,
    the first one or a redirect's. Raises Refused or GillError; then nothing of it is kept.
    """
    stop, again = stop_after_attempt(ATTEMPTS), retry_if_exception_type(CUT)
    retrying = Retrying(stop=stop, wait=WAIT, retry=again, reraise=True)
    end = time.monotonic() + seconds
    with whole_file(path) as part:
        try:
            retrying(_receive, url, part, kind, most, end, check_url, progress)
        except OSError as error:  # those of requests among them
            if (said := _said(error, url)) is None:
                raise
            raise said from error
        check_kind(part, kind, url)
        digest = sha256(part)
        if known_sha256 not in (None, digest):
            raise Refused(
                "another sha256",
                f"{url} has the sha256 {digest[:12]}..., not {known_sha256[:12]}... as known "
                f"before for {path}; nothing is kept: try again later, or see docs/data.md if "
                "the file was changed for good",
            )
    return digest


def _said(error: OSError, url: str) -> GillError | None:
    """What stopped a download, None where it is not the network."""
    found = cause(error, url)
    if isinstance(error, CUT):
        what, mend = found or (str(error), AGAIN)
        return GillError(f"{url} cannot be downloaded now ({what}, {ATTEMPTS} times); {mend}")
    if found:
        return GillError(f"{url} cannot be downloaded: {found.what}; {found.mend}")
    if isinstance(error, requests.RequestException):
        return Refused("no such address", f"{url} cannot be asked for: {error}")
    return None


def _receive(url: str, part: Path, kind: str, most, end, check_url, progress: bool) -> None:
    """One attempt to bring `url` into the file `part`, by the time `end`."""
    check_url(url)

    def look(answer, **_) -> None:  # at every answer, those that lead elsewhere among them
        if answer.is_redirect:
            check_url(urljoin(answer.url, answer.headers["Location"]))

    with (
        requests.get(
            url, stream=True, timeout=TIMEOUT, headers=HEADERS, hooks={"response": look}
        ) as answer,
        open(part, "wb") as file,
        tqdm(
            total=_length(answer, url, kind, most, part.parent) or None, disable=not progress,
            desc=url.rpartition("/")[2], unit="B", unit_scale=True, delay=2,
        ) as bar,
    ):  # fmt: skip
        for piece in _pieces(answer, end):
            bar.update(file.write(piece))
            _check_size(url, file.tell(), most)
            if time.monotonic() > end:
                raise Refused("too slow", f"{url} comes too slowly; nothing is kept")


def _length(answer, url: str, kind: str, most, folder: Path) -> int:
    """The bytes that an answer announces, 0 where it does not; refuses what is no such file."""
    status, length = answer.status_code, answer.headers.get("Content-Length", "0")
    if status in BUSY:
        raise Busy(f"the server answers {status}")
    if status != 200:
        raise Refused(f"answer {status}", f"{url} is not there (answer {status})")
    if GONE in answer.url:
        raise Refused("removed from Flickr", f"{url} was removed from Flickr")
    if "text/html" in answer.headers.get("Content-Type", ""):
        _refuse_page(url, kind)
    if not length.isdecimal():
        raise Refused("no length", f"{url} says that it has {length!r} bytes")
    _check_size(url, int(length), most)
    if int(length) > shutil.disk_usage(folder).free:
        raise GillError(
            f"{folder} has no room for the {length} bytes of {url}; free some or choose another "
            "--data-dir"
        )
    return int(length)


def _pieces(answer, end: float):
    """The answer's bytes; where a clock is to be heard as they come, not in pieces of one size."""
    if end < math.inf:
        raw = answer.raw
        read = getattr(raw, "read1", raw.read)  # an old urllib3 has none
        raw.stream = lambda size, **how: iter(lambda: read(size, **how), b"")
    return answer.iter_content(PIECE)


def _check_size(url: str, size: int, most) -> None:
    if size > most:
        raise Refused(
            "too large",
            f"{url} is larger than it may be ({size} bytes or more, at most {most}); nothing is "
            "kept",
        )


def _refuse_page(url: str, kind: str) -> None:
    raise Refused("a web page", f"{url} sends a web page, not {KINDS[kind][0]}; nothing is kept")


def check_kind(path: Path, kind: str, url: str) -> None:
    """Refuse a file that is not whole or not of its kind. Archives are read when unpacked."""
    what, begins_so = KINDS[kind]
    with open(path, "rb") as file:
        head = file.read(4096)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:5].lower() in (b"<!doc", b"<html", b"<head"):
        _refuse_page(url, kind)
    if head.startswith(POINTER):
        raise Refused(
            "a Git LFS pointer", f"{url} sends a Git LFS pointer, not {what}; nothing is kept"
        )
    if not begins_so(head):
        raise Refused(f"not {what}", f"{url} does not begin as {what}; nothing is kept")
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
        raise Refused(f"not {what}", f"{url} is not {what}, or cut off: {error}") from error
