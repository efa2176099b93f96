"""Results files as rows and frames: what `page` shows and a notebook beside it."""

import math
from datetime import datetime
from pathlib import Path

import pandas as pd

from gill_lite.errors import GillError
from gill_lite.files import read_json
from gill_lite.report import claims
from gill_lite.report.intervals import Interval
from gill_lite.report.numbers import NONE, flat, results_frame
from gill_lite.training.recipes import RECIPES, train_command

VERDICTS = (claims.REPRODUCED, claims.WITHIN_NOISE, claims.NOT_REPRODUCED, claims.TOO_FEW,
            claims.UNDEFINED, claims.NOT_RUN, claims.NO_STATISTIC)  # fmt: skip
OFFICIAL = "_official"  # ends the names of tables made under the official protocol
NOVEL = "_novel"  # of those on scenes never trained
KEYS = ("table", "title", "rows", "verdicts", "counts", "settings", "provenance", "figures")
SOME = {"topic": "", "controls": [], "spread": [], "verdicts_by_lm": []}  # not every table has them
ALIKE = {  # what all tables of a run should share: in words, and where provenance has it
    "git commits": lambda made: made["git_commit"],
    "lock files": lambda made: made["lock_sha256"],
    "manifests of weights": lambda made: made["weights_manifest_sha256"],
    "processors": lambda made: made["hardware"]["processor"],
    "numbers of cores": lambda made: made["hardware"]["cores"],
}


# ---- reading -----------------------------------------------------------------------------


def read_results(folder) -> tuple[dict[str, dict], list[str]]:
    """Every table in a folder of results files, by the file's name, in the order of the claims.

    A file is a table if it has the key "table". Also returned: a sentence for each file that is
    broken, or a table that lacks something.
    """
    found, problems = {}, []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            content = read_json(path, "results file")
            if "table" in content:
                found[path.stem] = complete(content, path)
        except GillError as error:
            problems.append(str(error))
    order = {topic: place for place, topic in enumerate(_topics())}
    ordered = sorted(found.items(), key=lambda item: order.get(item[1]["topic"], len(order)))
    return dict(ordered), problems


def complete(result: dict, path="") -> dict:
    """A results file's content with all the keys that the report reads.

    The verdict on a claim of the claims file is computed anew from the intervals the file holds.
    Raises GillError naming what the file `path` lacks.
    """
    lost = [key for key in KEYS if key not in result]
    if lost:
        raise GillError(f"results file {path} lacks {', '.join(lost)}; make its table anew")
    known = {claim.id: claim for claim in claims.read_claims()}
    rows = [claims.judged_anew(known[row["id"]], row) if row["id"] in known else row
            for row in result["verdicts"]]  # fmt: skip
    topics = [known[row["id"]].table for row in rows if row["id"] in known]
    topics.append(result["table"].removesuffix(OFFICIAL).removesuffix(NOVEL))
    return {**SOME, **result, "verdicts": rows, "topic": result.get("topic") or topics[0]}


def _topics() -> list[str]:
    return list(dict.fromkeys(claim.table for claim in claims.read_claims()))


# ---- what the report says, as rows and frames --------------------------------------------


def claim_rows(results: dict[str, dict]) -> list[dict]:
    """`claims.all_verdicts` of all tables, each with its table's "title" and "controls".

    Where a claim was judged in several forms of a table, the corrected protocol's on seen scenes
    counts.
    """
    run = [{"topic": result["topic"],
            "verdicts": [row for row in result["verdicts"] if row["difference"] is not None]}
           for result in _corrected_last(results)]  # fmt: skip
    of_topic = by_topic(results)
    rows = claims.all_verdicts(run)
    for row in rows:
        result = of_topic.get(row["table"], {})
        row |= {"title": result.get("title", row["table"]), "controls": result.get("controls", [])}
    return rows


def by_topic(results: dict[str, dict]) -> dict[str, dict]:
    """The table on which each topic's claims are judged: see `claim_rows`."""
    return {result["topic"]: result for result in _corrected_last(results)}


def _corrected_last(results: dict[str, dict]) -> list[dict]:
    others = (OFFICIAL, NOVEL)
    return sorted(results.values(), key=lambda result: not result["table"].endswith(others))


def claims_frame(rows: list[dict]) -> pd.DataFrame:
    """The claims of `claim_rows` as text; controls of our own stand below, marked and uncounted."""
    shown = []
    for topic in dict.fromkeys(row["table"] for row in rows):
        part = [row for row in rows if row["table"] == topic]
        shown += [_claim_text(topic, row["statement"], row) for row in part]
        shown += [_claim_text(topic, f"(control) {row['statement']}", row)
                  for row in part[0]["controls"]]  # fmt: skip
    return pd.DataFrame(shown)


def _claim_text(topic: str, statement: str, row: dict) -> dict:
    return {"table": topic, "the paper says": statement, "source": row["source"],
            "statistic": row["statistic"], "our difference": difference_text(row),
            "verdict": row["verdict"]}  # fmt: skip


def difference_text(row: dict) -> str:
    """ "0.134 [0.112, 0.158]", or a dash where a claim was not run."""
    return NONE if row["difference"] is None else str(Interval.of(row))


def tally(rows: list[dict]) -> pd.DataFrame:
    """How many claims of each table have which verdict."""
    frame = pd.DataFrame(rows)
    counts = pd.crosstab(frame["table"], frame["verdict"]).reindex(frame["table"].unique())
    names = [name for name in VERDICTS if name in counts]
    return counts[names].assign(claims=counts.sum(axis=1))


def made_frame(results: dict[str, dict]) -> pd.DataFrame:
    """One row a table: the command that makes it, how much was scored, on what, how long."""
    rows = []
    for name, result in results.items():
        counts, made = result["counts"], result["provenance"]
        machine, memory = made["hardware"], made["peak_memory_mb"]  # memory: None on Windows
        rows.append({
            "table": name,
            "command": made["command"],
            "scored": counts["scored"],
            "eligible": counts["eligible"],
            "skipped": sum(counts["skipped"].values()),
            "seeds": ", ".join(str(seed) for seed in result["settings"]["seeds"]),
            "minutes": f"{made['wall_seconds'] / 60:.1f}",
            "memory (GB)": f"{memory / 1024:.1f}" if memory else NONE,
            "machine": f"{machine['cores']} cores, {machine['processor']}",
        })  # fmt: skip
    return _by("table", rows)


def hashes_frame(results: dict[str, dict], digits: int = 10) -> pd.DataFrame:
    """One row a table: commit, and the first digits of the hashes of lock, weights and data."""
    rows = []
    for name, result in results.items():
        made = result["provenance"]
        data = [part["data"]["sha256"][:digits] for part in _inputs(made) if "data" in part]
        commit, _, changed = made["git_commit"].partition("+")
        rows.append({
            "table": name,
            "made (UTC)": made["finished_utc"],
            "git commit": commit[:digits] + ("+" + changed if changed else ""),
            "lock": (made["lock_sha256"] or NONE)[:digits],
            "weights": (made["weights_manifest_sha256"] or NONE)[:digits],
            "data": ", ".join(data) or NONE,
        })  # fmt: skip
    return _by("table", rows)


def joints_frame(results: dict[str, dict]) -> pd.DataFrame:
    """The joints behind the numbers: their hash, which tables use them, the command for each."""
    used: dict[tuple[str, str], list[str]] = {}
    for name, result in results.items():
        parts = _inputs(result["provenance"])
        for joint, digest in {item for part in parts for item in part.get("joints", {}).items()}:
            if digest:  # None: a backbone, which the manifest tells of
                used.setdefault((joint, digest), []).append(name)
    rows = []
    for (joint, digest), names in sorted(used.items()):
        method, _, seed = joint.rpartition("-")
        command = train_command(method, int(seed)) if method in RECIPES else NONE
        rows.append({"joints": joint, "hash": digest[:10], "command": command,
                     "used in": ", ".join(names)})  # fmt: skip
    return _by("joints", rows)


def _by(name: str, rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows).set_index(name) if rows else pd.DataFrame()


def _inputs(made: dict) -> list[dict]:
    """What a table's scores depend on; several where it draws several datasets."""
    inputs = made.get("inputs", {})
    several = [part for part in inputs.values() if isinstance(part, dict) and "joints" in part]
    return several or [inputs]


def run_of(results: dict[str, dict]) -> dict:
    """Facts of a run from its tables: profile, how long all took, a table's largest memory."""
    made = [result["provenance"] for result in results.values()]
    return {
        "profile": ", ".join(sorted({one["profile"] for one in made})) or "unknown",
        "tables": len(made),
        "wall_seconds": round(busy_seconds(made), 1),
        "peak_memory_mb_of_a_table": max((one["peak_memory_mb"] or 0 for one in made), default=0),
    }


def busy_seconds(about: list[dict]) -> float:
    """How long at least one of the runs was under way: two at the same time count once."""
    ends = [datetime.fromisoformat(one["finished_utc"]).timestamp() for one in about]
    runs = sorted((end - one["wall_seconds"], end) for one, end in zip(about, ends, strict=True))
    total, until = 0.0, -math.inf
    for start, end in runs:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def unlike(results: dict[str, dict]) -> str:
    """What the tables do not share: "3 git commits, 2 processors"; empty if all are alike."""
    counts = {words: len({fact(result["provenance"]) for result in results.values()})
              for words, fact in ALIKE.items()}  # fmt: skip
    return ", ".join(f"{count} {words}" for words, count in counts.items() if count > 1)


def counts_text(result: dict) -> str:
    """How many examples were scored, of how many, and why others were not."""
    counts = result["counts"]
    text = f"{counts['scored']} of {counts['eligible']} eligible examples scored"
    reasons = ", ".join(f"{reason}: {n}" for reason, n in counts["skipped"].items())
    return f"{text}; skipped: {reasons}." if reasons else f"{text}; none skipped."


def as_text(result: dict) -> str:
    """Table, verdicts and counts for the terminal."""
    result = complete(result)
    told = claims.verdicts_frame([*result["verdicts"], *result["controls"]])
    told = told[["verdict", "our difference", "the paper says"]]
    parts = [
        result["title"],
        flat(results_frame(result["rows"])).to_string(index=False),
        told.to_string(index=False) if len(told) else "no verdicts",
        counts_text(result),
    ]
    return "\n\n".join(parts) + "\n"
