"""A resumable run over a dataset: one row an example, kept as it goes.

Rows go to `rows.jsonl`, a batch at a time. Killed and started again, a run redoes the
unfinished batch whole, so that it ends bit-identical to one that nothing interrupted.
"""

import hashlib
import itertools
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gill_lite.datasets.reading import MAX_SKIPPED, Tally, Unusable
from gill_lite.errors import GillError
from gill_lite.files import (
    append_text,
    only_one,
    read_json,
    read_rows,
    refuse_other_settings,
    tidy,
    write_json,
    write_text,
)

BATCH = 32  # pictures drawn together, by every command: scores depend on it in their last digits
ROWS, CONFIG = "rows.jsonl", "config.json"  # in a run's folder
SECONDS = "seconds.json"  # what scoring took, over all its starts


@dataclass(frozen=True)
class WorkItem:
    """One picture to make and score. `method` "sd" has no joints: seed it once."""

    example_id: str
    method: str
    context: str
    seed: int

    @property
    def key(self) -> str:
        """Names the row of this item."""
        return f"{self.method}/{self.context}/{self.seed}/{self.example_id}"

    @property
    def cell(self) -> tuple[str, str, int]:
        """Items of one cell may share a batch."""
        return self.method, self.context, self.seed


def work_items(example_ids: Sequence[str], cells: Sequence[tuple[str, str, int]]) -> list[WorkItem]:
    """Every example in every cell (method, context, seed), cell by cell."""
    return [WorkItem(example_id, *cell) for cell in cells for example_id in example_ids]


def row_cell(key: str) -> tuple[str, ...]:
    """The cell of a row, as text, from its key."""
    return tuple(key.split("/", 3)[:3])


@dataclass(frozen=True)
class RunResult:
    """Rows in the order of the examples, and what became of them."""

    rows: list[dict]  # scored ones only; each has "key" and what score_fn gave
    eligible: int
    skipped: Counter  # reason -> how many
    earlier_seconds: float = field(default=0.0, compare=False)  # of other starts and processes
    lost: Counter = field(default_factory=Counter)  # the same by examples, not by pictures to make

    @property
    def scored(self) -> int:
        """How many examples have scores."""
        return len(self.rows)

    @property
    def counts(self) -> dict:
        """What became of the examples, as results files tell it."""
        return {"scored": self.scored, "eligible": self.eligible, "skipped": dict(self.skipped)}


def run_resumable(
    items: Sequence[WorkItem], score_fn: Callable[[list], list[dict]], output_dir, config: dict,
    batch_size: int = BATCH, progress: bool | None = None, description: str = "evaluate",
    fault: Callable[[str], Unusable | None] = lambda example_id: None,
    max_skipped: float = MAX_SKIPPED,
) -> RunResult:  # fmt: skip
    """Score every item once, over as many starts as it takes.

    score_fn: a batch of items -> one dict of JSON values each; one with a method `stream` is given
    all batches and gives their dicts in order, see `Scorer.stream`. Batches are cut from the whole
    list, never across cells, so they are the same in every start. config: what the scores depend
    on; a run with another one is refused with the difference. progress: None shows a bar on a
    terminal only. fault: why the example of that id cannot be used, now; it is skipped with that
    reason, and the next start asks again.
    Raises GillError where another run holds `output_dir`, its files are broken, a score is NaN,
    or more than `max_skipped` of the examples cannot be used.
    """
    keys = [item.key for item in items]
    repeated = [name for name, count in Counter(keys).items() if count > 1]
    if repeated:
        raise GillError(f"the run names {repeated[0]} twice; every example needs its own id")
    if batch_size < 1:
        raise GillError(f"batch_size must be at least 1, not {batch_size}")
    output_dir = Path(output_dir)
    with only_one(output_dir):
        tidy(output_dir, ROWS, SECONDS, CONFIG)
        keep_config(output_dir, describe(config, keys, batch_size))
        rows = scores_by_key(output_dir / ROWS)
        unknown = rows.keys() - set(keys)
        if unknown:
            raise GillError(
                f"{output_dir}/{ROWS} holds {min(unknown)}, no part of this run; name another -o"
            )
        cuts = batches([item.cell for item in items], batch_size)
        for item in items:
            if "skipped" in rows.get(item.key, {}) and not fault(item.example_id):
                del rows[item.key]  # it has become usable
        earlier = kept_seconds(output_dir)
        score = _sound(score_fn, fault, Tally("this run", False, max_skipped), items)
        _score_missing(cuts, items, keys, rows, score, output_dir, progress, description, earlier)
        if list(rows) != keys:  # after damage was mended, rows stand where they were redone
            write_text(output_dir / ROWS, "".join(line(rows[name]) for name in keys))
    return run_result(keys, rows, earlier)


def kept_seconds(output_dir: Path) -> float:
    """What scoring took so far in the run of that folder; 0 before its first batch."""
    path = output_dir / SECONDS
    return read_json(path, "time of a run")["scoring"] if path.exists() else 0.0


def run_result(keys: Sequence[str], rows: dict[str, dict], earlier: float = 0.0) -> RunResult:
    """The rows of all keys, in their order, and the count of what was skipped."""
    ordered = [rows[name] for name in keys]
    skipped = Counter(row["skipped"] for row in ordered if "skipped" in row)
    lost = {row["key"].split("/", 3)[3]: row["skipped"] for row in ordered if "skipped" in row}
    scored = [row for row in ordered if "skipped" not in row]
    return RunResult(scored, len(keys), skipped, earlier, Counter(lost.values()))


def _sound(score_fn, fault, tally: Tally, items):
    """Batches -> rows of each; examples in them may be unusable, and are told to `tally`."""
    tally.eligible = len({item.example_id for item in items})
    seen: set[str] = set()
    looked_at: deque[list[Unusable | None]] = deque()  # of the batches that are not scored yet

    def sound(batch: list[WorkItem]) -> list[WorkItem]:
        faults = {item.example_id: fault(item.example_id) for item in batch}
        for name in faults.keys() - seen:
            seen.add(name)
            if faults[name]:
                tally.skip(faults[name])
                tally.check()
        looked_at.append([faults[item.example_id] for item in batch])
        return [item for item in batch if not faults[item.example_id]]

    def scored(batches: Iterable[list[WorkItem]]) -> Iterator[list[dict]]:
        each = partial(map, lambda batch: score_fn(batch) if batch else [])
        for scores in getattr(score_fn, "stream", each)(map(sound, batches)):
            faults = looked_at.popleft()
            if len(scores) != faults.count(None):
                raise GillError(
                    f"the score function gave {len(scores)} rows, not {faults.count(None)}"
                )
            found = iter(scores)
            yield [{"skipped": why.reason} if why else next(found) for why in faults]

    return scored


def batches(cells: Sequence, batch_size: int) -> list[list[int]]:
    """Positions of items, by their cells, cut where the cell changes or the batch is full."""
    cuts = []
    for _, group in itertools.groupby(range(len(cells)), key=lambda i: cells[i]):
        group = list(group)
        cuts += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
    return cuts


def _score_missing(
    cuts, items, keys, rows, score_fn, output_dir, progress, description, earlier
):  # fmt: skip
    """Score the batches that lack a row, each whole, and append their rows."""
    from tqdm import tqdm

    path = output_dir / ROWS
    todo = [batch for batch in cuts if any(keys[i] not in rows for i in batch)]
    partial = {keys[i] for batch in todo for i in batch} & rows.keys()
    for name in partial:
        del rows[name]
    write_text(path, "".join(line(row) for row in rows.values()))  # whole batches only
    disable = None if progress is None else not progress
    started = time.perf_counter()
    with tqdm(total=len(keys), initial=len(rows), disable=disable, desc=description) as bar:
        rows_of = score_fn([items[i] for i in batch] for batch in todo)
        for batch, scores in zip(todo, rows_of, strict=True):
            new = {keys[i]: {"key": keys[i], **row} for i, row in zip(batch, scores, strict=True)}
            append_text(path, "".join(line(row) for row in new.values()))
            rows |= {name: json.loads(line(row)) for name, row in new.items()}
            bar.update(len(batch))
            spent = earlier + time.perf_counter() - started
            write_json(output_dir / SECONDS, {"scoring": round(spent, 3)})


def line(row: dict) -> str:
    """A row as it is kept. Raises GillError where JSON has no word for a value."""
    try:
        return json.dumps(row, sort_keys=True, allow_nan=False) + "\n"
    except (ValueError, TypeError) as error:
        raise GillError(f"the scores of {row.get('key')} cannot be kept: {error}") from error


def scores_by_key(path: Path) -> dict[str, dict]:
    """The rows of a run; a torn last line, left by a kill, is made again."""
    return {row["key"]: row for row in read_rows(path, "score file", "key")}


def describe(config: dict, keys: Sequence[str], batch_size: int) -> dict:
    """A run's configuration: what its scores depend on, and which items it has, in JSON."""
    ids = hashlib.sha256("\n".join(keys).encode()).hexdigest()
    wanted = {**config, "items": len(keys), "items_sha256": ids, "batch_size": batch_size}
    try:
        return json.loads(json.dumps(wanted, sort_keys=True, allow_nan=False))
    except (ValueError, TypeError) as error:
        raise GillError(f"the run's config must be JSON: {error}") from error


def keep_config(output_dir: Path, wanted: dict) -> None:
    """Keep the configuration at the first start, compare at every other."""
    path = output_dir / CONFIG
    if not path.exists():
        write_json(path, wanted)
        return
    there = read_json(path, "run configuration")
    refuse_other_settings(output_dir, there, wanted, "name a new folder")
