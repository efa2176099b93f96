"""checksums.json: what lies in a data folder, where it came from, and the sha256 of each file.

What upstream publishes no sha256 for is recorded here at its first download; from then on a
file that differs is an error, whether on the disk or from the server.
"""

from pathlib import Path

from tqdm.auto import tqdm

from gill_lite.errors import GillError
from gill_lite.files import read_json, sha256, write_json

NAME = "checksums.json"
PARTS = ("files", "archives", "models", "refused")


class Checksums:
    """The record of one data folder.

    files: path below the folder -> {sha256, bytes, from}; what was unpacked from an archive
    has the archive's path as `from`. archives: path -> sha256 of the archive, which is not
    kept. models: hub id -> {revision, files: {name: sha256}}. refused: pictures that could not
    be had -> why.
    """

    def __init__(self, data_dir):
        self.data_dir = Path(data_dir)
        self.path = self.data_dir / NAME
        known = read_json(self.path, "record of checksums") if self.path.exists() else {}
        self.files: dict[str, dict] = known.get("files", {})
        self.archives: dict[str, str] = known.get("archives", {})
        self.models: dict[str, dict] = known.get("models", {})
        self.refused: dict[str, str] = known.get("refused", {})

    def save(self) -> None:
        """Write the record, atomically."""
        write_json(self.path, {name: getattr(self, name) for name in PARTS})

    def note(self, name: str, origin: str, digest: str | None = None) -> None:
        """Record the file `name` below the folder, which came from `origin`."""
        path = self.data_dir / name
        digest = digest or sha256(path)
        self.files[name] = {"sha256": digest, "bytes": path.stat().st_size, "from": origin}

    def unpacked_from(self, archive: str) -> list[str]:
        """The recorded files that came out of `archive`."""
        return [name for name, about in self.files.items() if about["from"] == archive]

    def present(self, names) -> bool:
        """Whether these recorded files are all on the disk.

        Raises GillError where one is not the file that was recorded.
        """
        names = list(names)
        if not all(name in self.files and (self.data_dir / name).is_file() for name in names):
            return False
        for name in tqdm(names, desc="checking sha256", unit="file", delay=2):
            path, about = self.data_dir / name, self.files[name]
            if path.stat().st_size != about["bytes"] or sha256(path) != about["sha256"]:
                raise GillError(
                    f"{path} is not the file that was downloaded (its sha256 is not that of "
                    f"{self.path}); delete it and fetch it again"
                )
        return bool(names)
