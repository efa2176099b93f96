"""Take the wanted files out of an archive that nobody has looked at."""

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from gill_lite.fetching.download import Refused
from gill_lite.files import CannotWrite

MOST_MEMBERS = 1_000_000
DAMAGED = (  # RuntimeError: a zip with a password or an unknown compression
    tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError,
)  # fmt: skip


class Member(NamedTuple):
    """What an archive says of a member. Its bytes alone are ever taken: no owner, no mode."""

    name: str
    size: int  # bytes, as declared
    kind: str  # file, folder or special
    open: Callable


def unpack(archive, patterns, into, most: int) -> list[Path]:
    """Unpack the members of a zip or tar archive that match `patterns` into the folder `into`.

    A pattern such as `images/*.jpg` matches a member's last parts and says where it goes; what
    stands before them is dropped. most: bytes that all members together may declare.
    Raises Refused, and leaves `into` as it was, where any member has an absolute path, `..`, a
    link or another special file, where they declare too much, where the archive is damaged or
    where a pattern matches nothing.
    """
    archive, into = Path(archive), Path(into)
    temporary = into / ".unpacking"
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    temporary.mkdir(parents=True)
    try:
        names = _unpack(archive, patterns, temporary, most)
        for name in names:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / name, into / name)
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno:  # the disk's fault, not the archive's
            raise CannotWrite(into, error) from error
        raise Refused("damaged", f"archive {archive} is damaged or cut off: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [into / name for name in names]


def _unpack(archive: Path, patterns, folder: Path, most: int) -> list[str]:
    """Write the wanted members into `folder`; their names below it."""
    found: dict[str, list[str]] = {pattern: [] for pattern in patterns}
    declared = 0
    for number, member in enumerate(_members(archive)):
        _check_name(archive, member)
        declared += member.size
        if declared > most or number >= MOST_MEMBERS:
            raise Refused(
                "too large",
                f"archive {archive} would unpack to more than {most} bytes or "
                f"{MOST_MEMBERS} files; it is not unpacked",
            )
        for pattern, names in found.items():
            if member.kind == "file" and PurePosixPath(member.name).match(pattern):
                names.append(_write(archive, member, pattern, folder))
    for pattern, names in found.items():
        if not names:
            raise Refused("incomplete", f"archive {archive} holds nothing called {pattern}")
    return [name for names in found.values() for name in names]


def _members(archive: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where made on Windows
                kind = "folder" if info.is_dir() else "file"
                kind = kind if mode in (0, stat.S_IFREG, stat.S_IFDIR) else "special"
                yield Member(info.filename, info.file_size, kind, partial(file.open, info))
    else:
        with tarfile.open(archive, "r:*") as file:
            for info in file:
                kind = "file" if info.isfile() else "folder" if info.isdir() else "special"
                yield Member(info.name, info.size, kind, partial(file.extractfile, info))


def _check_name(archive: Path, member: Member) -> None:
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(member.name).drive:
        raise Refused(
            "unsafe path", f"archive {archive} has a member outside its folder: {member.name!r}; "
            "it is not unpacked",
        )  # fmt: skip
    if member.kind == "special":
        raise Refused(
            "a link",
            f"archive {archive} has a link or special file: {member.name!r}; it is not unpacked",
        )


def _write(archive: Path, member: Member, pattern: str, folder: Path) -> str:
    """Write one member; returns its place below the folder."""
    name = "/".join(PurePosixPath(member.name).parts[-len(PurePosixPath(pattern).parts) :])
    target = folder / name
    if target.exists():
        raise Refused("twice", f"archive {archive} holds {name} twice")
    target.parent.mkdir(parents=True, exist_ok=True)
    with member.open() as source, open(target, "wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    return name
