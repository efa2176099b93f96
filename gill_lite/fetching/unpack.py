"""Take the wanted files out of an archive that nobody has looked at."""

import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, cast

from gill_lite.errors import GillError
from gill_lite.fetching.download import Refused

MOST_MEMBERS = 1_000_000
DAMAGED = (  # RuntimeError: a zip with a password or an unknown compression
    tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError,
)  # fmt: skip


def unpack(archive, patterns, into, most: int) -> list[Path]:
    """Unpack the members of a zip or tar archive that match `patterns` into the folder `into`.

    A pattern such as `images/*.jpg` matches a member's last parts and says where it goes; what
    stands before them is dropped. most: bytes that all members together may declare.
    Raises Refused, and leaves `into` as it was, where any member has an absolute path, `..`, a
    link or another special file, where they declare too much, where the archive is damaged or
    where a pattern matches nothing.
    """
    archive, into = Path(archive), Path(into)
    into.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=into, prefix=".unpacking-"))
    try:
        names = _unpack(archive, patterns, temporary, most)
        for name in names:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / name, into / name)
    finally:
        shutil.rmtree(temporary)
    return [into / name for name in names]


def _unpack(archive: Path, patterns, temporary: Path, most: int) -> list[str]:
    wanted = {pattern: [] for pattern in patterns}
    declared = 0
    reader = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    try:
        for number, (name, kind, size, copy) in enumerate(reader(archive)):
            _check_member(archive, name, kind)
            declared += size
            if declared > most or number >= MOST_MEMBERS:
                raise Refused(
                    "too large",
                    f"archive {archive} would unpack to more than {most} bytes or "
                    f"{MOST_MEMBERS} files; it is not unpacked",
                )
            for pattern, names in wanted.items():
                if kind == "file" and PurePosixPath(name).match(pattern):
                    names.append(_place(archive, name, pattern, temporary, copy))
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno:  # the disk's fault, not the archive's
            raise GillError(f"cannot unpack {archive}: {error.strerror}") from error
        raise Refused("damaged", f"archive {archive} is damaged or cut off: {error}") from error
    for pattern, names in wanted.items():
        if not names:
            raise Refused("incomplete", f"archive {archive} holds nothing called {pattern}")
    return [name for names in wanted.values() for name in names]


def _place(archive: Path, name: str, pattern: str, temporary: Path, copy) -> str:
    """Write one member; returns its place below the folder."""
    parts = PurePosixPath(name).parts[-len(PurePosixPath(pattern).parts) :]
    target = temporary.joinpath(*parts)
    if target.exists():
        raise Refused("twice", f"archive {archive} holds {'/'.join(parts)} twice")
    target.parent.mkdir(parents=True, exist_ok=True)
    copy(target)
    return "/".join(parts)


def _check_member(archive: Path, name: str, kind: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise Refused(
            "unsafe path", f"archive {archive} has a member outside its folder: {name!r}; "
            "it is not unpacked",
        )  # fmt: skip
    if kind == "special":
        raise Refused(
            "a link", f"archive {archive} has a link or special file: {name!r}; it is not unpacked"
        )


def _zip_members(archive: Path):
    """Name, kind, declared bytes and a function that writes the member."""
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)  # 0 where made on Windows
            kind = "folder" if info.is_dir() else "file"
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "special"

            def copy(target: Path, info=info) -> None:
                with file.open(info) as source, open(target, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)

            yield info.filename, kind, info.file_size, copy


def _tar_members(archive: Path):
    """As `_zip_members`. Only bytes are taken: no owner, no mode, no link."""
    with tarfile.open(archive, "r:*") as file:
        for member in file:
            kind = "file" if member.isfile() else "folder" if member.isdir() else "special"

            def copy(target: Path, member=member) -> None:
                source = cast(IO[bytes], file.extractfile(member))  # None for a folder alone
                with source, open(target, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)

            yield member.name, kind, member.size, copy
