"""Results files as rows and tables: what `report` shows on its page and a notebook beside it.

Files of older versions lack some keys; what is lacking reads as not run.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from gill_lite.errors import GillError
from gill_lite.evaluation.metrics import Interval
from gill_lite.files import read_json
from gill_lite.report import claims
from gill_lite.report.numbers import flat, results_table
from gill_lite.training.recipes import RECIPES, train_command

if TYPE_CHECKING:
    import pandas as pd

NONE = "–"
VERDICTS = (claims.REPRODUCED, claims.WITHIN_NOISE, claims.NOT_REPRODUCED, claims.UNDEFINED,
            claims.NOT_RUN)  # fmt: skip
OFFICIAL = "_official"  # ends the names of tables made under the official protocol
EMPTY = {
    "title": "", "rows": [], "verdicts": [], "controls": [], "spread": [], "verdicts_by_lm": [],
    "counts": {}, "settings": {}, "provenance": {}, "figures": [],
}  # fmt: skip
ROW = {"method": "", "context": "", "metric": "", "mean": None, "low": None, "high": None, "n": 0,
       "paper": None, "paper_pm": None}  # fmt: skip
VERDICT = {"id": "", "statement": "", "verdict": claims.NOT_RUN, "difference": None, "low": None,
           "high": None, "n": 0, "source": "", "statistic": ""}  # fmt: skip
ALIKE = {  # what all tables of a run should share: in words, and where provenance has it
    "git commits": ("git_commit",),
    "lock files": ("lock_sha256",),
    "manifests of weights": ("weights_manifest_sha256",),
    "processors": ("hardware", "processor"),
    "numbers of cores": ("hardware", "cores"),
}


# ---- reading -----------------------------------------------------------------------------


def read_results(folder) -> dict[str, dict]:
    """Every table in a folder of results files, by the file's name, in the order of the claims.

    A file is a table if it has the key "table". One that is no JSON becomes a table without rows
    that says so under "problem".
    """
    found = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            result = read_json(path, "results file")
        except GillError as error:
            result = {"table": path.stem, "title": path.name, "problem": str(error)}
        if "table" in result:
            found[path.stem] = complete(result)
    order = {topic: place for place, topic in enumerate(_topics())}
    return dict(sorted(found.items(), key=lambda item: order.get(topic_of(item[1]), len(order))))


def complete(result: dict) -> dict:
    """A results file's content with a value for every key that the report reads.

    The verdict on a claim of the claims file is computed anew from the interval the file holds.
    """
    result = {**EMPTY, "title": result["table"], **result}
    known = {claim.id: claim for claim in claims.read_claims()}
    for name, keys in (("rows", ROW), ("verdicts", VERDICT), ("controls", VERDICT)):
        result[name] = [{**keys, "undefined": _undefined(row), **row} for row in result[name]]
    for row in result["verdicts"]:
        if row["id"] in known:
            statistic = known[row["id"]].statistic
            row["verdict"] = claims.verdict(_interval(row), statistic.side, statistic.threshold)
    return result


def _undefined(row: dict) -> str:
    """Why a row of an older file has no number or no interval, as far as that can be told."""
    if row.get("mean", row.get("difference")) is None:
        return "not run"
    return "" if row.get("low") is not None else "no interval"


def _interval(row: dict) -> Interval:
    return Interval(row["difference"], row["low"], row["high"], row["n"], row["undefined"])


def topic_of(result: dict) -> str:
    """What the claims file calls the table of a results file."""
    of = {claim.id: claim.table for claim in claims.read_claims()}
    named = [of[row["id"]] for row in result.get("verdicts", []) if row.get("id") in of]
    return result.get("topic") or next(iter(named), result["table"].removesuffix(OFFICIAL))


def _topics() -> list[str]:
    return list(dict.fromkeys(claim.table for claim in claims.read_claims()))


# ---- what the report says, as rows and tables --------------------------------------------


def claim_rows(results: dict[str, dict]) -> list[dict]:
    """`claims.all_verdicts` of all tables, each with its table's "title" and "controls".

    Where a claim was judged under both protocols, the corrected one counts.
    """
    completed = [complete(result) for result in results.values()]
    ordered = sorted(completed, key=lambda result: not result["table"].endswith(OFFICIAL))
    run = [{"verdicts": [row for row in result["verdicts"] if row["difference"] is not None]}
           for result in ordered]  # fmt: skip
    of_topic = {topic_of(result): result for result in ordered}
    rows = claims.all_verdicts(run)
    for row in rows:
        result = of_topic.get(row["table"], {})
        row |= {"title": result.get("title", row["table"]), "controls": result.get("controls", [])}
    return rows


def claims_table(rows: list[dict]) -> "pd.DataFrame":
    """The claims of `claim_rows` as text; controls of our own stand below, marked and uncounted."""
    import pandas as pd

    shown, told = [], []
    for place, row in enumerate(rows):
        shown.append(_claim_text(row["table"], row["statement"], row))
        last = place + 1 == len(rows) or rows[place + 1]["table"] != row["table"]
        if last and row["table"] not in told:
            told.append(row["table"])
            shown += [_claim_text(row["table"], f"(control) {control['statement']}", control)
                      for control in row["controls"]]  # fmt: skip
    return pd.DataFrame(shown)


def _claim_text(table: str, statement: str, row: dict) -> dict:
    return {"table": table, "the paper says": statement, "source": row["source"],
            "statistic": row["statistic"], "our difference": difference_text(row),
            "verdict": row["verdict"]}  # fmt: skip


def difference_text(row: dict) -> str:
    """ "0.134 [0.112, 0.158]", or a dash where a claim was not run."""
    if row["difference"] is None:
        return NONE
    return str(_interval(row))


def tally(rows: list[dict]) -> "pd.DataFrame":
    """How many claims of each table have which verdict."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    counts = pd.crosstab(frame["table"], frame["verdict"]).reindex(frame["table"].unique())
    names = [name for name in VERDICTS if name in counts]
    return counts[names].assign(claims=counts.sum(axis=1))


def made_table(results: dict[str, dict]) -> "pd.DataFrame":
    """One row a table: the command that makes it, how much was scored, on what, how long."""
    import pandas as pd

    rows = []
    for name, result in results.items():
        result = complete(result)
        counts, made = result["counts"], result["provenance"]
        machine = made.get("hardware", {})
        rows.append({
            "table": name,
            "command": made.get("command") or NONE,
            "scored": counts.get("scored", NONE),
            "eligible": counts.get("eligible", NONE),
            "skipped": sum(counts.get("skipped", {}).values()) if counts else NONE,
            "seeds": _listed(result["settings"].get("seeds")),
            "minutes": _scaled(made.get("wall_seconds"), 60),
            "memory (GB)": _scaled(made.get("peak_memory_mb"), 1024),
            "machine": f"{machine['cores']} cores, {machine['processor']}" if machine else NONE,
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("table") if rows else pd.DataFrame()


def hashes_table(results: dict[str, dict], digits: int = 10) -> "pd.DataFrame":
    """One row a table: commit, and the first digits of the hashes of lock, weights and data."""
    import pandas as pd

    rows = []
    for name, result in results.items():
        made = complete(result)["provenance"]
        data = [str(part.get("data", {}).get("sha256") or NONE)[:digits] for part in _inputs(made)]
        commit, _, changed = str(made.get("git_commit") or NONE).partition("+")
        rows.append({
            "table": name,
            "made (UTC)": made.get("finished_utc", NONE),
            "git commit": commit[:digits] + ("+" + changed if changed else ""),
            "lock": str(made.get("lock_sha256") or NONE)[:digits],
            "weights": str(made.get("weights_manifest_sha256") or NONE)[:digits],
            "data": ", ".join(data),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("table") if rows else pd.DataFrame()


def joints_table(results: dict[str, dict]) -> "pd.DataFrame":
    """The joints behind the numbers: their hash, which tables use them, the command for each."""
    import pandas as pd

    used: dict[tuple[str, str], list[str]] = {}
    for name, result in results.items():
        parts = _inputs(complete(result)["provenance"])
        known = {item for part in parts for item in part.get("joints", {}).items()}
        for joint, digest in known:
            used.setdefault((joint, str(digest)), []).append(name)
    rows = []
    for (joint, digest), names in sorted(used.items()):
        method, _, seed = joint.rpartition("-")
        command = train_command(method, int(seed)) if method in RECIPES else NONE
        rows.append({"joints": joint, "hash": digest[:10], "command": command,
                     "used in": ", ".join(names)})  # fmt: skip
    return pd.DataFrame(rows).set_index("joints") if rows else pd.DataFrame()


def _inputs(made: dict) -> list[dict]:
    """What a table's scores depend on; several where it draws several datasets."""
    inputs = made.get("inputs") or {}
    several = [part for part in inputs.values() if isinstance(part, dict) and "joints" in part]
    return several or [inputs]


def run_of(results: dict[str, dict]) -> dict:
    """Facts of a run from its tables: profile, how long all took, the largest memory."""
    made = [complete(result)["provenance"] for result in results.values()]
    profiles = sorted({p["profile"] for p in made if "profile" in p})
    return {
        "profile": ", ".join(profiles) or "unknown",
        "tables": len(made),
        "wall_seconds": round(sum(p.get("wall_seconds") or 0 for p in made), 1),
        "peak_memory_mb": max((p.get("peak_memory_mb") or 0 for p in made), default=0),
    }


def unlike(results: dict[str, dict]) -> str:
    """What the tables do not share: "3 git commits, 2 processors"; empty if all are alike."""
    found = []
    for words, keys in ALIKE.items():
        values = set()
        for result in results.values():
            value = complete(result)["provenance"]
            for key in keys:
                value = value.get(key, {})
            values |= {str(value)} if value else set()
        found += [f"{len(values)} {words}"] if len(values) > 1 else []
    return ", ".join(found)


def counts_text(result: dict) -> str:
    """How many examples were scored, of how many, and why others were not."""
    counts = result["counts"]
    if not counts:
        return "The file does not say how many examples were scored."
    text = f"{counts['scored']} of {counts['eligible']} eligible examples scored"
    reasons = ", ".join(f"{reason}: {n}" for reason, n in counts.get("skipped", {}).items())
    return f"{text}; skipped: {reasons}." if reasons else f"{text}; none skipped."


def as_text(result: dict) -> str:
    """Table, verdicts and counts for the terminal."""
    result = complete(result)
    told = claims.verdict_table([*result["verdicts"], *result["controls"]])
    told = told[["verdict", "our difference", "the paper says"]]
    parts = [
        result["title"],
        flat(results_table(result["rows"])).to_string(index=False),
        told.to_string(index=False) if len(told) else "no verdicts",
        counts_text(result),
    ]
    return "\n\n".join(parts) + "\n"


def _listed(values: Iterable | None) -> str:
    return NONE if values is None else ", ".join(str(value) for value in values)


def _scaled(value: float | None, unit: float) -> str:
    return NONE if value is None else f"{value / unit:.1f}"
