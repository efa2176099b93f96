"""A run as a folder of Markdown: a page a claim, to publish or to lay beside another run."""

import shutil
from pathlib import Path

import pandas as pd

from gill_lite.errors import GillError
from gill_lite.files import whole_folder
from gill_lite.report import claims, page, summary
from gill_lite.report.numbers import flat, results_frame, to_markdown

SCALES = {"mini": "mini world", "paper": "paper scale"}  # of evidence, by profile
RUNS = ("this run", "the other run")


def read_run(folder) -> dict[str, dict]:
    """The tables of a run folder, or of a folder of results files; see `summary.read_results`.

    Raises GillError where there is none, or where one is broken.
    """
    folder = Path(folder)
    inside = folder / "results"
    results, problems = summary.read_results(inside if inside.is_dir() else folder)
    if problems:
        raise GillError(f"{problems[0]}; a logbook is made of whole results")
    if not results:
        raise GillError(
            f"{folder} holds no results; name a run folder of `gill-lite reproduce`, such as runs/x"
        )
    return results


def write(run_dir, output_dir, against=None) -> Path:
    """Write the logbook of a run into the new folder `output_dir`, and return its first page.

    against: another run, compared with this one in compare.md. Raises GillError where a run has
    no results or `output_dir` is not empty; the folder appears whole or not at all.
    """
    results = read_run(run_dir)
    other = read_run(against) if against else None
    rows = summary.claim_rows(results)
    by_topic = summary.by_topic(results)
    environment = page.environment(autoescape=False)
    environment.filters |= {"markdown": to_markdown, "numbers": results_frame,
                            "difference": summary.difference_text,
                            "counts": summary.counts_text}  # fmt: skip
    with whole_folder(output_dir) as folder:
        (folder / "claims").mkdir()
        figures = {topic: _copied(run_dir, folder, result) for topic, result in by_topic.items()}

        def put(name: str, template: str, **content) -> None:
            text = environment.get_template(template).render(marks=page.MARKS, **content)
            (folder / name).write_text(text, encoding="utf-8")

        for row in rows:
            topic = row["table"]
            put(f"claims/{row['id']}.md", "claim.md.j2", row=row, result=by_topic.get(topic),
                scale=scale(by_topic.get(topic)), figures=figures.get(topic, []))  # fmt: skip
        put("README.md", "logbook.md.j2", rows=rows, count=claims.count_text(rows),
            scale=scale, by_topic=by_topic, results=results, made=summary.made_frame(results),
            hashes=summary.hashes_frame(results), compared=other is not None)  # fmt: skip
        if other is not None:
            put("compare.md", "compare.md.j2", claims=compared_claims(results, other),
                numbers=compared_numbers(results, other), against=against)  # fmt: skip
    return Path(output_dir) / "README.md"


def scale(result: dict | None) -> str:
    """The scale of a table's evidence: "mini world", "paper scale", or that it was not run."""
    if result is None:
        return claims.NOT_RUN
    profile = result["provenance"]["profile"]
    return SCALES.get(profile, profile)


def compared_claims(results: dict, other: dict) -> pd.DataFrame:
    """Every claim with its verdict and difference in both runs, and whether the verdict is one."""
    pairs = zip(summary.claim_rows(results), summary.claim_rows(other), strict=True)
    shown = []
    for mine, theirs in pairs:
        both = {run: f"{row['verdict']}: {summary.difference_text(row)}"
                for run, row in zip(RUNS, (mine, theirs), strict=True)}  # fmt: skip
        same = "same" if mine["verdict"] == theirs["verdict"] else "**differs**"
        shown.append({"claim": mine["id"], **both, "verdict": same})
    return pd.DataFrame(shown)


def compared_numbers(results: dict, other: dict) -> pd.DataFrame:
    """The cells of tables in which the runs differ, those of a table that one run lacks included.

    Columns: table, cell, this run, the other run; empty where every number is the same text.
    """
    mine, theirs = _cells(results), _cells(other)
    shown = []
    for key in dict.fromkeys([*mine, *theirs]):
        both = (mine.get(key, "not there"), theirs.get(key, "not there"))
        if both[0] != both[1]:
            shown.append({"table": key[0], "cell": key[1], **dict(zip(RUNS, both, strict=True))})
    return pd.DataFrame(shown, columns=["table", "cell", *RUNS])


def _cells(results: dict) -> dict[tuple[str, str], str]:
    """(table, "method, context, metric") to our number as text."""
    found = {}
    for name, result in results.items():
        frame = flat(results_frame(result["rows"]))
        for _, row in frame.iterrows():
            for column in frame.columns[2:]:
                if column.endswith(", ours"):
                    what = f"{row['method']}, {row['context']}, {column.removesuffix(', ours')}"
                    found[name, what] = row[column]
    return found


def _copied(run_dir, folder: Path, result: dict) -> list[str]:
    """Copies a table's figures that the run has; their paths as a claim's page names them."""
    found = []
    for name in result["figures"]:
        if (source := Path(run_dir) / name).is_file():
            (folder / "figures").mkdir(exist_ok=True)
            shutil.copyfile(source, folder / "figures" / source.name)
            found.append(f"../figures/{source.name}")
    return found
