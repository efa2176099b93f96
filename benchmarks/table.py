"""Write what `make bench` measured: `python -m benchmarks.table runs/bench/benchmarks.json`.

results/benchmarks.json keeps rows, shares, points of growth and where they come from; the tables
of docs/benchmarks.md and docs/growth.png are made of it. What was taken with --quick or -k is
only printed.
"""

import sys
from pathlib import Path

from tabulate import tabulate

from benchmarks import plots
from benchmarks.record import at_most
from gill_lite.evaluation.tables import choose
from gill_lite.experiments.readme import placed
from gill_lite.files import read_json, read_text, write_json, write_text
from gill_lite.provenance import repository_root

HEADS = ("what", "on which weights", "ours", "reference", "ratio", "goal", "")
MEMORY = 3 * 1024  # MB that `make reproduce` may take
NONE = "–"


def collected(measured: dict, root: Path) -> dict:
    """What results/benchmarks.json holds, from pytest-benchmark's file and the reference runs."""
    extra = [test["extra_info"] for test in measured["benchmarks"]]
    return {
        "rows": [row for one in extra for row in one.get("rows", [])] + [memory_row(root)],
        "where": next((one["where"] for one in extra if "where" in one), {}),
        "growth": [one["growth"] for one in extra if "growth" in one],
        "provenance": measured["provenance"],
    }


def memory_row(root: Path) -> dict:
    """The most that a process of `make reproduce` held, from the committed reference runs."""
    results = [read_json(root / "results" / f"{t.name}.json") for t in choose(["all"])]
    peak = max(result["provenance"]["peak_memory_mb"] for result in results)
    goal = at_most(MEMORY)
    return {
        "what": "peak memory of a table of `make reproduce`, as its results say", "weights": "mini",
        "unit": "MB", "ours": peak, "reference": None, "goal": goal._asdict(),
        "met": goal.met(peak, None),
    }  # fmt: skip


# ---- text ----------------------------------------------------------------------------------


def amount(value: float | None, unit: str) -> str:
    """Three digits and a unit that fits."""
    if value is None:
        return NONE
    if unit == "s" and value < 1:
        value, unit = value * 1e3, "ms"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def ratio(row: dict) -> str:
    """How much faster ours is, or how much longer it takes where the goal asks that."""
    if row["reference"] is None:
        return NONE
    if row["goal"] and row["goal"]["kind"] != "faster":
        return f"{row['ours'] / row['reference']:.2f} of it"
    return f"{row['reference'] / row['ours']:.1f} times faster"


def goal(row: dict) -> str:
    """The goal in words."""
    if row["goal"] is None:
        return NONE
    kind, value = row["goal"]["kind"], row["goal"]["value"]
    said = {
        "faster": f"{value:g} times faster",
        "as long": f"at most {value:g} of it",
        "at most": f"at most {amount(value, row['unit'])}",
    }
    return said[kind]


def verdict(row: dict) -> str:
    """Whether the goal is reached."""
    return {True: "met", False: "**missed**", None: ""}[row["met"]]


def rows_table(result: dict) -> str:
    """The table of what was measured, and the machine it was taken on."""
    cells = [
        [
            row["what"], row["weights"], amount(row["ours"], row["unit"]),
            amount(row["reference"], row["unit"]), ratio(row), goal(row), verdict(row),
        ]
        for row in result["rows"]
    ]  # fmt: skip
    about, machine = result["provenance"], result["provenance"]["hardware"]
    return (
        f"{tabulate(cells, HEADS, tablefmt='github', disable_numparse=True)}\n\n"
        f"{machine['processor']}, {machine['cores']} cores, {about['threads']} threads; torch "
        f"{about['libraries']['torch']}; {about['finished_utc'][:10]}; `{about['command']}`, "
        f"{about['wall_seconds'] / 60:.0f} minutes."
    )


def where_table(result: dict) -> str:
    """Where the time of Table 1 goes, the largest part first."""
    parts = sorted(result["where"].items(), key=lambda part: -part[1])
    cells = [[label, f"{100 * share:.1f} %"] for label, share in parts]
    return tabulate(cells, ("part of drawing and scoring Table 1", "time"), tablefmt="github")


def main(measured: dict) -> None:
    """Print the table; if all of it was measured, keep it and write the pages."""
    root = repository_root()
    result = collected(measured, root)
    print(rows_table(result), where_table(result), sep="\n\n")
    if not measured["whole"]:
        return
    write_json(root / "results" / "benchmarks.json", result)
    path = root / "docs" / "benchmarks.md"
    page = placed(read_text(path), "benchmarks", rows_table(result))
    write_text(path, placed(page, "where", where_table(result)))
    plots.growth(result["growth"], root / "docs" / "growth.png")


if __name__ == "__main__":
    main(read_json(sys.argv[1], "measures of pytest-benchmark"))
