"""A run cut over processes or machines, and put together again.

Shard i of n takes every n-th batch of the whole run, so that each batch, and with it every
score, is what a single process would have made. Each shard is a resumable run in a folder of
its own; the merge writes the rows as a run of one process would have left them.
"""

import hashlib
import itertools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from gill_lite.errors import GillError
from gill_lite.evaluation.run import (
    SECONDS,
    RunResult,
    batches,
    describe,
    keep_config,
    kept_seconds,
    line,
    row_cell,
    run_result,
    scores_by_key,
)
from gill_lite.files import read_json, refuse_other_settings, write_json, write_text

FOLDER = re.compile(r"shard-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def read(cls, text: str) -> "Shard":
        """From "i/n". Raises GillError where that is no part of a whole."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise GillError(f"a shard is i/n with i from 1 to n, for example 2/4, not '{text}'")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def label(self) -> str:
        """For a progress bar: nothing where there is but one."""
        return "" if self.count == 1 else f" {self}"

    def folder(self, run: Path) -> Path:
        """Where the shard of the run in folder `run` keeps its rows."""
        if self.count == 1:
            return run
        return run / f"shard-{self.number}-of-{self.count}"

    def share(self, items: list, batch_size: int) -> list:
        """The items of this shard: every `count`-th batch of the whole."""
        cuts = batches([item.cell for item in items], batch_size)
        return [items[i] for cut in cuts[self.number - 1 :: self.count] for i in cut]

    def config(self, config: dict, items: list, batch_size: int) -> dict:
        """The run's configuration, and for a true shard which part of which whole it is."""
        if self.count == 1:
            return config
        whole = describe(config, [item.key for item in items], batch_size)
        return {**config, "shard": str(self), "whole": whole}


ALL = Shard()


def shards_in(run: Path) -> dict[Shard, Path]:
    """The folders of shards in a run's folder."""
    found = {}
    for path in sorted(run.glob("shard-*-of-*")):
        if (match := FOLDER.fullmatch(path.name)) and (path / "config.json").is_file():
            found[Shard(int(match[1]), int(match[2]))] = path
    return found


def refuse_other_cuts(run: Path, shard: Shard) -> None:
    """Raises GillError where `run` holds shards of another cut than `shard`'s."""
    if shard == ALL and (run / "config.json").is_file():  # begun as one run, or merged
        return
    others = [path for s, path in shards_in(run).items() if s.count != shard.count]
    if others:
        raise GillError(
            f"{run} holds shards of another cut ({', '.join(p.name for p in others)}); go on with "
            f"as many processes as before, or remove these folders"
        )


def merge(run: Path) -> RunResult:
    """Put the shards in folder `run` together: rows and configuration as of one process.

    Raises GillError naming the shards that are missing, unfinished, or overlap, and where they
    are of different runs.
    """
    run = Path(run)
    shards = shards_in(run)
    _whole_set(run, shards)
    configs = {
        s: read_json(path / "config.json", "run configuration") for s, path in shards.items()
    }
    whole = _same_run(configs, run)
    rows = {shard: _finished(shard, path, configs[shard]) for shard, path in shards.items()}
    keys = _in_order(rows, whole, run)
    merged = {row["key"]: row for part in rows.values() for row in part.values()}
    keep_config(run, whole)
    write_text(run / "rows.jsonl", "".join(line(merged[key]) for key in keys))
    spent = sum(kept_seconds(path) for path in shards.values())
    write_json(run / SECONDS, {"scoring": round(spent, 3)})
    return run_result(keys, merged, spent)


def _whole_set(run: Path, shards: dict[Shard, Path]) -> None:
    if not shards:
        raise GillError(f"{run} holds no shards; make them with `gill-lite evaluate --shard i/n`")
    counts = sorted({shard.count for shard in shards})
    names = ", ".join(path.name for path in shards.values())
    if len(counts) > 1:
        raise GillError(f"the shards in {run} overlap, they are of different cuts: {names}")
    wanted = [Shard(i, counts[0]) for i in range(1, counts[0] + 1)]
    missing = [str(shard) for shard in wanted if shard not in shards]
    if missing:
        raise GillError(
            f"{run} lacks the shards {', '.join(missing)}; make them with "
            f"`gill-lite evaluate --shard {missing[0]}` and the other options as before"
        )


def _same_run(configs: dict[Shard, dict], run: Path) -> dict:
    """The configuration of the whole, in which all shards must agree."""
    first = next(iter(configs.values())).get("whole", {})
    for shard, config in configs.items():
        part = {"shard": config.get("shard"), **config.get("whole", {})}
        mend = "remove it and make it anew, as the other parts were made"
        refuse_other_settings(shard.folder(run), part, {"shard": str(shard), **first}, mend)
    return first


def _finished(shard: Shard, path: Path, config: dict) -> dict[str, dict]:
    """The rows of a shard by key, all of them."""
    rows = scores_by_key(path / "rows.jsonl")
    if len(rows) < config["items"]:
        raise GillError(
            f"shard {shard} has {len(rows)} of {config['items']} rows ({path}); run it again, it "
            "goes on where it stopped"
        )
    return rows


def _in_order(rows: dict[Shard, dict], whole: dict, run: Path) -> list[str]:
    """The keys of the whole run in their order: the shards' batches dealt back in turn."""
    dealt = []
    for shard in sorted(rows, key=lambda s: s.number):
        keys = list(rows[shard])
        cuts = batches([row_cell(key) for key in keys], whole["batch_size"])
        dealt.append([[keys[i] for i in cut] for cut in cuts])
    turns = itertools.zip_longest(*dealt, fillvalue=[])
    keys = [key for turn in turns for batch in turn for key in batch]
    repeated = sorted(key for key, times in Counter(keys).items() if times > 1)
    if repeated:
        holders = [str(s) for s in rows if repeated[0] in rows[s]]
        raise GillError(f"the shards {' and '.join(holders)} in {run} overlap in {repeated[0]}")
    if hashlib.sha256("\n".join(keys).encode()).hexdigest() != whole["items_sha256"]:
        raise GillError(f"the shards in {run} do not make up the run they are part of")
    return keys
