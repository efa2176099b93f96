"""(image, caption) pairs at random access, which is what training reads.

Only where each pair lies is held in memory; pictures are opened when their pair is asked for.
"""

import hashlib
import warnings
from collections import Counter

import numpy as np
from PIL import Image

from gill_lite.datasets.reading import Tally, Unusable, told
from gill_lite.errors import GillError

FEW = 10  # that many damaged pictures are never too many


class Pairs:
    """Item i is (PIL image, caption) of the i-th usable pair; a subclass gives `read(i)`.

    A picture that turns out to be damaged when it is opened is replaced by the next pair whose
    picture is not. That follows from i alone, so a resumed run reads what the first one read.
    Each is warned of and counted in `damaged`. What the workers of a data loader opened is told
    to `count`.
    """

    def __init__(self, tally: Tally, places: np.ndarray):
        """places (N, ...): where each usable pair lies; tally: what was found beside them."""
        self.source, self.max_skipped = tally.source, tally.max_skipped
        self.eligible, self.skipped = tally.eligible, tally.skipped
        self.places = places
        self.opened, self.damaged = 0, Counter()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> tuple[Image.Image, str]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        for place in range(i, i + len(self)):
            self.opened += 1
            try:
                return self.read(place % len(self))
            except Unusable as error:
                self._replace(place % len(self), error)
        raise GillError(f"{self.source}: the pictures of all {len(self)} pairs are damaged")

    def read(self, i: int) -> tuple[Image.Image, str]:
        """Pair i as it is stored. Raises Unusable where its picture is damaged."""
        raise NotImplementedError

    def _replace(self, i: int, error: Unusable) -> None:
        self.count(0, Counter({error.reason: 1}), f"; the last: {error}")
        warnings.warn(f"pair {i} gives way to the next one: {error}", stacklevel=3)

    def count(self, opened: int, damaged: Counter, last: str = "") -> None:
        """Count pictures opened and damaged. Raises GillError where too many are damaged."""
        self.opened += opened
        self.damaged += damaged
        if self.damaged.total() > max(FEW, self.max_skipped * self.opened):
            raise GillError(
                f"{self.source}: {self.damaged.total()} of {self.opened} pictures opened so far "
                f"are damaged (at most {self.max_skipped:.0%} may be, see --max-skipped){last}"
            )

    def damage(self) -> str:
        """One line about the damaged pictures among those opened so far; empty without any."""
        if not self.damaged:
            return ""
        return (
            f"{self.source}: {self.damaged.total()} of {self.opened} pictures opened were damaged "
            f"({told(self.damaged)}); the next one took each one's place"
        )

    def summary(self) -> str:
        """One line for a person: "...: 300 of 310 usable; skipped 10 (missing image 10)"."""
        text = f"{self.source}: {len(self)} of {self.eligible} usable"
        skipped = self.skipped
        return f"{text}; skipped {skipped.total()} ({told(skipped)})" if skipped else text

    def about(self) -> dict:
        """What a training run notes of its data, JSON-ready; `digest` changes with the order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.places).tobytes()).hexdigest()
        counts = {"pairs": len(self), "eligible": self.eligible, "skipped": dict(self.skipped)}
        return {"source": self.source, **counts, "digest": digest[:16]}
