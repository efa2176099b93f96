"""What every reader shares: examples, the count of what was skipped, the folder of images."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gill_lite.datasets.images import SUFFIXES
from gill_lite.errors import GillError

MAX_SKIPPED = 0.5  # a larger unusable share is an error
PROBE = 1_000  # a source is given up when that many examples at its start are all unusable


@dataclass(frozen=True)
class Reading:
    """What a reader found in a file.

    examples: the usable ones, in file order. eligible: all the file holds.
    skipped: reason -> how many; `len(examples) + sum(skipped.values()) == eligible`.
    ids: in file order those of the usable examples and of those that lack a picture alone, which
    may come; for the latter with what is missing.
    """

    examples: list
    eligible: int
    skipped: Counter = field(default_factory=Counter)
    ids: dict[str, "Unusable | None"] = field(default_factory=dict)


class Unusable(Exception):
    """One example that cannot be used: a short reason to count, a sentence for a person.

    example_id: of one that lacks a picture alone.
    """

    def __init__(self, reason: str, sentence: str, example_id: str | None = None):
        super().__init__(sentence)
        self.reason, self.example_id = reason, example_id


class Tally:
    """Counts what of a source is usable, and stops where too much is not.

    strict: the first unusable example is an error.
    """

    def __init__(self, source: str, strict: bool = False, max_skipped: float = MAX_SKIPPED):
        self.source, self.strict, self.max_skipped = source, strict, max_skipped
        self.eligible, self.skipped, self.first = 0, Counter(), ""

    def usable(self, items, make) -> Iterator:
        """`make(item)` of the items for which it does not raise Unusable.

        Raises GillError naming the source where its first PROBE examples are all unusable, or
        in the end more than `max_skipped` of it.
        """
        for item in items:
            self.eligible += 1
            try:
                value = make(item)
            except Unusable as error:
                self.skip(error)
            else:
                yield value
        self.check()

    def skip(self, error: Unusable, count: int = 1) -> None:
        """Count `count` unusable examples among those already in `eligible`."""
        if self.strict:
            raise GillError(str(error)) from error
        self.skipped[error.reason] += count
        self.first = self.first or str(error)
        if self.eligible >= PROBE and self.skipped.total() == self.eligible:
            raise GillError(f"{self.source}: all of its first {self._unusable()}")

    def check(self) -> None:
        """GillError where nothing is usable, or less than must be."""
        if not self.eligible:
            raise GillError(f"{self.source} holds no examples; check that it is the right file")
        count = self.skipped.total()
        if count == self.eligible or count > self.max_skipped * self.eligible:
            raise GillError(f"{self.source}: {count} of {self._unusable()}")

    def _unusable(self) -> str:
        return (
            f"{self.eligible} examples are unusable ({told(self.skipped)}; at most "
            f"{self.max_skipped:.0%} may be, see --max-skipped); the first: {self.first}"
        )


def told(skipped: Counter) -> str:
    """Reasons and their counts for a person: "missing image 10, empty caption 2"."""
    return ", ".join(f"{reason} {count}" for reason, count in skipped.most_common())


def collect(items, make, source, strict: bool = False, max_skipped: float = MAX_SKIPPED) -> Reading:
    """Call `make(item)` for each item; count those that raise Unusable. See `Tally`."""
    tally, ids = Tally(source, strict, max_skipped), {}

    def kept(item):
        try:
            example = make(item)
        except Unusable as error:
            if error.example_id is not None:
                ids[error.example_id] = error
            raise
        ids[example.example_id] = None
        return example

    examples = list(tally.usable(items, kept))
    return Reading(examples, tally.eligible, tally.skipped, ids)


def need(record, key: str, source, what: str):
    """`record[key]`. Raises GillError naming the file and the key it lacks."""
    if not isinstance(record, dict) or key not in record:
        raise GillError(f"{source} is not in the official format: {what} lacks '{key}'")
    return record[key]


class ImageFolder:
    """The images of one folder by their name without suffix, listed once.

    Where one name has several suffixes the first of `SUFFIXES` wins.
    """

    def __init__(self, directory):
        """Raises GillError where `directory` is not a folder."""
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise GillError(f"image folder {directory} is missing; check the path or fetch it")
        rank = {suffix: i for i, suffix in enumerate(SUFFIXES)}
        found = [p for p in self.directory.iterdir() if p.suffix.lower() in rank]
        found.sort(key=lambda p: (rank[p.suffix.lower()], p.name), reverse=True)
        self.paths = {path.stem: path for path in found}

    def find(self, stem: str, owner: str, example_id: str) -> Path:
        """The image called `stem`. Raises Unusable naming it and its `owner`."""
        if stem not in self.paths:
            told = f"image {stem} of {owner} is missing in {self.directory}"
            raise Unusable("missing image", told, example_id)
        return self.paths[stem]
