"""Files and folders written whole or not at all, JSON read with a sentence a person can act on.

Here, too, what a run needs that is stopped and goes on: a lock, a log, the settings it began with.
"""

import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from gill_lite.errors import GillError

GZIP = b"\x1f\x8b"  # begins a compressed file
POINTER = b"version https://git-lfs"  # begins what Git LFS puts in the place of a file
NO_FILE_YET = "is a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned"
# What the repository ships: beside the package in a clone, elsewhere where the variable says.
DATA = Path(os.environ.get("GILL_LITE_DATA") or Path(__file__).resolve().parents[1] / "data")


def shipped(name: str) -> Path:
    """`name` in the folder `data`. Raises GillError where that folder is not at hand."""
    if not DATA.is_dir():
        raise GillError(
            f"there is no folder {DATA}: the installed package brings no weights; clone the "
            "repository and let the environment variable GILL_LITE_DATA name its folder data"
        )
    return DATA / name


class CannotWrite(GillError, OSError):
    """The disk is full, the folder read-only, or a name in the path is taken."""

    def __init__(self, path, error: Exception):
        self.strerror = getattr(error, "strerror", None) or str(error)
        super().__init__(f"cannot write {path} ({self.strerror}); {mend_of(error)}")


def mend_of(error: Exception) -> str:
    """What helps where a file could not be read or written."""
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "you may not read or write it: change its rights or choose another folder"
    if number not in (errno.ENOSPC, errno.EDQUOT, None):  # None: a full disk, by safetensors
        return "choose another name or folder"
    return "free some space or choose another folder, then run the same command again"


@contextmanager
def writing(path):
    """What goes wrong while `path` is written becomes a `CannotWrite`."""
    from safetensors import SafetensorError  # a full disk, in its words

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CannotWrite(path, error) from error


@contextmanager
def only_one(place, beside: bool = False, wait: bool = False):
    """Hold the folder `place` for this run; the system lets go of it when the process dies.

    beside: the lock lies beside `place`, which may then be a file, or not be there yet. wait: for
    another run to let go of it; else GillError is raised at once where one holds it.
    """
    from filelock import FileLock, Timeout

    place = Path(place)
    lock = place.with_name(f".{place.name}.lock") if beside else place / ".lock"
    held = FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise GillError(f"another run is writing to {place}; wait or name another") from error
    except OSError as error:
        raise CannotWrite(lock, error) from error
    try:
        yield
    finally:
        held.release()


def refuse_address(place, who: str) -> None:
    """Raise GillError where an output folder is an address: `s3://…` would become a folder s3:."""
    if "://" in str(place) or re.match(r"(s3|gs|abs|adl|https?):/", str(place)):
        raise GillError(
            f"{who} is {place}, an address, and must be a folder of this machine; papermill "
            "writes a notebook to a bucket (its output name), results are copied there afterwards"
        )


def tidy(folder, *names: str) -> None:
    """Remove what a kill left half-written of the files `names` (patterns) in `folder`."""
    for name in names:
        for path in Path(folder).glob(f".{name}.*"):
            if path.suffix != ".lock":  # which a run may hold
                path.unlink()


@contextmanager
def whole_file(path):
    """A temporary path in the folder of `path` that takes its name when the block ends well.

    Raises CannotWrite; whatever goes wrong, what was at `path` stays as it was.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            os.close(handle)
            yield Path(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp makes private files
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(path):
    """A new folder that takes the name `path` when the block ends well, and else is removed.

    Raises GillError where something is there already, CannotWrite where writing fails.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise GillError(f"{path} is there already and not empty; name a new folder or remove it")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield temporary
            temporary.chmod(0o755)  # mkdtemp makes private folders
            if path.exists():
                path.rmdir()
            temporary.replace(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def write_bytes(path, content: bytes) -> Path:
    """Write `content`, whole or not at all. Raises CannotWrite."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


def append_text(path, text: str) -> None:
    """Put UTF-8 text behind what `path` holds; a kill may leave the last line torn."""
    with writing(path), open(path, "a", encoding="utf-8", newline="") as file:
        file.write(text)


def write_text(path, text: str) -> Path:
    """Write UTF-8 text atomically, line ends as they are.

    Names typed under a locale without Unicode get their own bytes back.
    """
    return write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path, value, indent: int | None = 1) -> Path:
    """Write JSON atomically, keys sorted, so that equal values give equal bytes.

    Raises GillError where a number is NaN or infinite: JSON has no word for either.
    """
    try:
        text = json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise GillError(f"cannot write {path}: {error}") from error
    return write_text(path, text + "\n")


def read_text(path, what: str = "file") -> str:
    """The UTF-8 text of `path`, without the byte-order mark that Windows puts before it.

    Raises GillError where it is missing or not text.
    """
    try:
        refuse_pointer(path)
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise GillError(f"{what} {path} is missing; check the path") from error
    except UnicodeDecodeError as error:
        raise no_text(f"{what} {path}", error) from error
    except OSError as error:
        raise GillError(f"{what} {path} cannot be read: {error.strerror}") from error


def restoring(folder, name: str) -> str:
    """The command that brings a committed file below `folder` back, as one may type it anywhere."""
    return f"`git -C {shlex.quote(str(folder))} checkout -- {shlex.quote(name)}`"


def refuse_pointer(place) -> None:
    """Raise GillError where `place`, or a file in that folder, is still to come by Git LFS, or may
    not be read, which libraries take for a missing file."""
    place = Path(place)
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if path.is_file():
            if not os.access(path, os.R_OK):
                raise GillError(f"{path} cannot be read: you have no right to; change its rights")
            with path.open("rb") as file:
                if file.read(len(POINTER)) == POINTER:
                    raise GillError(f"{path} {NO_FILE_YET}")


def no_text(who: str, error: UnicodeDecodeError) -> GillError:
    """What to say of a file, or of a line of one, that is not UTF-8."""
    if error.object.startswith(GZIP):
        return GillError(f"{who} is compressed (gzip); unpack it with gunzip")
    kind = "UTF-16" if error.object.startswith((b"\xff\xfe", b"\xfe\xff")) else error
    return GillError(f"{who} is not UTF-8 text ({kind}); save it as UTF-8")


def read_json(path, what: str = "file") -> dict:
    """The JSON object in `path`. Raises GillError naming the file and the broken line."""
    try:
        value = json.loads(read_text(path, what))
    except json.JSONDecodeError as error:
        raise GillError(
            f"{what} {path} is broken JSON at line {error.lineno}, column {error.colno} "
            f"({error.msg}); restore it, or make or fetch it anew"
        ) from error
    if not isinstance(value, dict):
        raise GillError(f"{what} {path} holds a JSON {type(value).__name__}, not an object")
    return value


def read_rows(path, what: str, key: str) -> list[dict]:
    """The JSON objects of a file of rows, one a line; none where there is no such file.

    A last line without its end, which a kill left torn, is dropped. Raises GillError naming the
    file and the line where another one is broken, or lacks `key`.
    """
    if not Path(path).exists():
        return []
    rows = []
    for number, line in enumerate(read_text(path, what).split("\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
            rows[-1][key]
        except (ValueError, KeyError, TypeError) as error:
            raise GillError(
                f"line {number} of {what} {path} is broken; remove that line"
            ) from error
    return rows


def cut_log(path, start: int) -> None:
    """Drop the rows of steps from `start` on, which will be made again."""
    tidy(Path(path).parent, Path(path).name)
    kept = [row for row in read_rows(path, "training log", "step") if row["step"] < start]
    write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def refuse_other_settings(place, theirs: dict, ours: dict, mend: str) -> None:
    """Raise GillError with each difference where `place` was made by other settings than `ours`."""
    there, now = _flat(theirs), _flat(json.loads(json.dumps(ours)))
    differ = [
        f"{name} was {there.get(name, 'absent')!r} and is {now.get(name, 'absent')!r}"
        for name in sorted(there.keys() | now.keys())
        if there.get(name, "absent") != now.get(name, "absent")
    ]
    if differ:
        raise GillError(f"{place} was made by other settings ({'; '.join(differ)}); {mend}")


def _flat(settings: dict, above: str = "") -> dict:
    """Nested settings side by side: {"a": {"b": 1}} -> {"a.b": 1}."""
    found = {}
    for name, value in settings.items():
        nested = isinstance(value, dict) and value
        found |= _flat(value, f"{above}{name}.") if nested else {above + name: value}
    return found


def name_on_disk(name: str) -> str:
    """A file's name out of a UTF-8 text as this system says it, also where it has no Unicode."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def sha256(path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
