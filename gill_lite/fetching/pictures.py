"""VIST's pictures, one by one from the URLs in its file, as the official code takes them.

Such a URL was written by nobody here: it is asked for on the public internet only, redirects
included, so that it cannot reach this machine or its local network.
"""

import re
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import lru_cache, partial
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from gill_lite.datasets.images import SUFFIXES
from gill_lite.datasets.reading import MAX_SKIPPED, need
from gill_lite.errors import GillError
from gill_lite.fetching.checksums import Checksums
from gill_lite.fetching.download import Refused, check_kind, download, is_offline, refuse_offline
from gill_lite.fetching.sources import MB, Source
from gill_lite.files import read_json, tidy

THREADS = 8  # pictures at a time
MOST = 200 * MB  # bytes of one picture
SECONDS = 600  # for one picture
FOLDER = "val_images"


def fetch_pictures(source: Source, checksums: Checksums) -> None:
    """Download what is missing of the pictures that `source.pictures` uses.

    Pictures that are gone, or are none, are counted, told and tried again the next time.
    Raises GillError where more than half cannot be had.
    """
    urls, without = picture_urls(checksums.data_dir / _vist_file(source))
    todo = _missing(urls, _vist_file(source).parent / FOLDER, checksums)
    refuse_offline(sorted(todo.keys() - checksums.refused.keys()))
    if not is_offline():
        hosts = frozenset(str(urlsplit(file.url).hostname) for file in source.files)
        _download_all(todo, checksums, hosts)
    reasons = Counter(checksums.refused[name] for name in todo if name in checksums.refused)
    reasons += Counter({"no URL": without})
    lost, total = reasons.total(), len(urls) + without
    told = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common())
    if lost > MAX_SKIPPED * total:
        raise GillError(
            f"{lost} of {total} pictures of {source.name} cannot be had ({told}); try again later"
        )
    if lost:
        print(f"{source.name}: {lost} of {total} pictures cannot be had ({told})")


def picture_urls(vist_json) -> tuple[dict[str, str], int]:
    """Photo id -> URL of the original, for those a story uses; and how many have no URL."""
    record = read_json(vist_json, "VIST file")
    annotations = need(record, "annotations", vist_json, "the file")
    used = {str(need(panel, "photo_flickr_id", vist_json, "a panel")) for (panel,) in annotations}
    images = need(record, "images", vist_json, "the file")
    if unsafe := [name for name in used if not re.fullmatch(r"[\w-]+", name)]:
        raise GillError(f"VIST file {vist_json} has the photo id {min(unsafe)!r}; fetch it again")
    known = {str(image.get("id")): image["url_o"] for image in images if image.get("url_o")}
    urls = {photo_id: known[photo_id] for photo_id in sorted(used & known.keys())}
    return urls, len(used) - len(urls)


def bytes_here(source: Source, checksums: Checksums) -> int:
    """Bytes of the pictures that are here; the whole stated size where the most part is."""
    prefix = (_vist_file(source).parent / FOLDER).as_posix() + "/"
    sizes = [about["bytes"] for name, about in checksums.files.items() if name.startswith(prefix)]
    path = checksums.data_dir / _vist_file(source)
    if path.is_file() and len(sizes) > MAX_SKIPPED * len(picture_urls(path)[0]):
        return source.pictures_size
    return sum(sizes)


def _vist_file(source: Source) -> Path:
    """Below the data folder: the VIST file whose pictures to take."""
    return Path(str(source.pictures))


def _missing(urls: dict[str, str], folder: Path, checksums: Checksums) -> dict[str, str]:
    """Name below the data folder -> URL, of those that are not here as recorded."""
    there = checksums.data_dir / folder
    there.mkdir(parents=True, exist_ok=True)
    tidy(there, "*")
    stems = {path.stem: path.name for path in there.iterdir() if path.suffix.lower() in SUFFIXES}
    todo = {}
    for photo_id, url in tqdm(urls.items(), desc="looking for pictures", delay=2):
        suffix = Path(url.partition("?")[0]).suffix.lower()
        default = f"{photo_id}{suffix if suffix in SUFFIXES else '.jpg'}"
        name = (folder / stems.get(photo_id, default)).as_posix()
        if photo_id in stems and name not in checksums.files:  # of a run that was killed
            try:
                check_kind(checksums.data_dir / name, "picture", name)
                checksums.note(name, url)
            except Refused:
                (checksums.data_dir / name).unlink()
        if not checksums.present([name]):
            todo[name] = url
    return todo


def _download_all(todo: dict[str, str], checksums: Checksums, hosts: frozenset[str]) -> None:
    """Note each picture that comes, and in `refused` each that does not.

    hosts: where the list of URLs came from; the others that it names must be public.
    """

    def one(name: str, url: str) -> str:
        return download(
            url, checksums.data_dir / name, "picture", most=MOST, seconds=SECONDS, progress=False,
            known_sha256=checksums.files.get(name, {}).get("sha256"),
            check_url=partial(check_public, hosts),
        )  # fmt: skip

    pool = ThreadPoolExecutor(THREADS)
    try:
        jobs = {pool.submit(one, name, url): name for name, url in todo.items()}
        for job in tqdm(as_completed(jobs), total=len(jobs), desc="pictures", delay=2):
            name = jobs[job]
            try:
                checksums.note(name, todo[name], job.result())
                checksums.refused.pop(name, None)
            except Refused as error:
                checksums.refused[name] = error.reason
    finally:
        pool.shutdown(cancel_futures=True)
        checksums.save()


# ---- addresses ---------------------------------------------------------------------------


def check_public(trusted: frozenset[str], url: str) -> None:
    """Refuse a URL that leads elsewhere than to a public address or a trusted host."""
    try:
        host = urlsplit(url).hostname
    except ValueError as error:
        raise Refused("no such address", f"{url} cannot be asked for: {error}") from error
    if host and host not in trusted and not all(map(_is_public, _addresses(host))):
        raise Refused(
            "no public address",
            f"{url} leads to this machine or its local network and is not asked for",
        )


def _is_public(address: str) -> bool:
    address = ip_address(address)
    return (getattr(address, "ipv4_mapped", None) or address).is_global


@lru_cache(maxsize=1024)
def _addresses(host: str) -> tuple[str, ...]:
    """What the name stands for; nothing where only a proxy, or nobody, knows it."""
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return ()
    return tuple({str(address[0]) for *_, address in found})
