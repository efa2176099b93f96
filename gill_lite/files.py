"""Files written whole or not at all, JSON read with a sentence a person can act on."""

import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from gill_lite.errors import GillError

DATA = Path(__file__).resolve().parents[1] / "data"  # what the repository ships


class CannotWrite(GillError, OSError):
    """The disk is full, the folder read-only, or a name in the path is taken."""

    def __init__(self, path, error: OSError):
        self.strerror = error.strerror or str(error)
        super().__init__(
            f"cannot write {path} ({self.strerror}); free some space or choose another folder, "
            "then run the same command again"
        )


@contextmanager
def writing(path):
    """What goes wrong while `path` is written becomes a `CannotWrite`."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(path, error) from error


@contextmanager
def only_one(folder, lock=None):
    """Hold `folder` for this run; the system lets go of it when the process dies.

    lock: the lock's file, `.lock` in the folder unless given. Raises GillError where another
    run holds it.
    """
    from filelock import FileLock, Timeout

    lock = Path(lock or Path(folder) / ".lock")
    held = FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=0)
    except Timeout as error:
        raise GillError(f"another run is writing to {folder}; wait or name another") from error
    except OSError as error:
        raise CannotWrite(lock, error) from error
    try:
        yield
    finally:
        held.release()


def tidy(folder, *names: str) -> None:
    """Remove what a kill left half-written of the files `names` (patterns) in `folder`."""
    for name in names:
        for path in Path(folder).glob(f".{name}.*"):
            path.unlink()


def write_bytes(path, content: bytes) -> Path:
    """Write `content` atomically: a temporary file in the same folder, then os.replace.

    Raises CannotWrite, and leaves what was there as it was.
    """
    path = Path(path)
    with writing(path):
        return _write_bytes(path, content)


def _write_bytes(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes private files
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


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
    """The UTF-8 text of `path`. Raises GillError where it is missing or not text."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise GillError(f"{what} {path} is missing; check the path") from error
    except UnicodeDecodeError as error:
        raise GillError(f"{what} {path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise GillError(f"{what} {path} cannot be read: {error.strerror}") from error


def read_json(path, what: str = "file") -> dict:
    """The JSON object in `path`. Raises GillError naming the file and the broken line."""
    try:
        value = json.loads(read_text(path, what))
    except json.JSONDecodeError as error:
        raise GillError(
            f"{what} {path} is broken JSON at line {error.lineno}, column {error.colno} "
            f"({error.msg}); fetch or export it again"
        ) from error
    if not isinstance(value, dict):
        raise GillError(f"{what} {path} holds a JSON {type(value).__name__}, not an object")
    return value


def name_on_disk(name: str) -> str:
    """A file's name out of a UTF-8 text as this system says it, also where it has no Unicode."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def sha256(path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
