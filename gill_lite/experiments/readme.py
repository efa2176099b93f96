"""Write what README.md and docs/ show of the project: `python -m gill_lite.experiments.readme`.

The course table is read from the notebooks' first cells, results from the reference runs, the
choices of a protocol from its dataclass; the picture is what README's lines of Python draw.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gill_lite.errors import GillError
from gill_lite.evaluation.protocol import choices_markdown
from gill_lite.evaluation.tables import MANY, TABLES
from gill_lite.family import SYSTEMS
from gill_lite.files import read_json, read_text, write_text
from gill_lite.provenance import repository_root
from gill_lite.report import claims
from gill_lite.report.ceiling import ceiling_frame
from gill_lite.report.numbers import results_frame, to_markdown
from gill_lite.report.summary import busy_seconds, counts_text

# README's three: longer contexts, the mapper, pictures in the context.
TELLING = ("vist-text-gain", "mappers-linear-insufficient", "vist-images-help")
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def placed(text: str, name: str, part: str, page="the page") -> str:
    """The text of a page with `part` between its markers. GillError where it has none."""
    place = re.compile(rf"(<!-- {name}:[^>]*-->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not place.search(text):
        raise GillError(f"{page} lacks the lines <!-- {name}: --> and <!-- /{name} -->")
    return place.sub(lambda found: f"{found[1]}\n{part}\n\n{found[2]}", text)


def with_course(readme: str, folder: Path) -> str:
    """README's text with its course table made anew: a row a notebook."""
    import nbformat

    rows = []
    for path in sorted(folder.glob("*.ipynb")):
        text = nbformat.read(path, as_version=4).cells[0].source
        [todo] = re.findall(r"\*\*What you will do:\*\* ([^,.\n]*)", text)
        [took] = re.findall(r"\*\*Measured:\*\* (\d+) seconds", text)
        rows.append((path.stem[:2], f"[{todo}](notebooks/{path.name})", f"{took} s"))
    return placed(readme, "course", _table(("", "what you will do", "takes"), rows))


def with_findings(readme: str, results: list[dict]) -> str:
    """README's text with the count of claims, and the three that tell most, made anew."""
    verdicts, _ = _verdicts(results)
    shown = claims.verdicts_frame([row for row in verdicts if row["id"] in TELLING])
    table = _table(shown.columns, shown.itertuples(index=False))
    return placed(readme, "findings", f"**{claims.count_text(verdicts)}**\n\n{table}")


def _verdicts(results: list[dict]) -> tuple[list[dict], list[dict]]:
    """On the claims of GILL's paper, and on those of others."""
    rows = claims.all_verdicts(results)
    others = [row for row in rows if claims.of_others(row)]
    return [row for row in rows if row not in others], others


def with_results(page: str, results: list[dict], novel: Sequence[dict] = ()) -> str:
    """The text of docs/results.md with every verdict and every table made anew.

    novel: tables on scenes never trained, which no claim is judged by.
    """
    parts = [
        part
        for whose, rows in zip(("", "Of other papers: "), _verdicts(results), strict=True)
        if rows
        for part in (
            f"**{whose}{claims.count_text(rows)}**",
            claims.verdicts_frame(rows).to_markdown(index=False),
        )
    ]
    parts.append(cost_text(results))
    return placed(page, "results", "\n\n".join([*parts, *map(results_section, [*results, *novel])]))


def results_section(result: dict) -> str:
    """Title, counts and table of a results file as markdown, and what could be known at all."""
    name = result["table"].removesuffix("_novel")
    table = next(table for table in TABLES.values() if table.name == name)
    settings = result["settings"]
    asked = ", ".join(f"{value} {name.removeprefix('num_')}" for name, value in settings.items()
                      if name.startswith("num_"))  # fmt: skip
    most = max(row["n"] for row in result["rows"])
    if most in (factor * table.count for factor in MANY.values()):
        asked += f" ({most:,} where one caption or round is read)"
    below = ""
    if table.typed in ("1", "2"):
        known = to_markdown(ceiling_frame(table, result["rows"]))
        below = f"\n\nAttribute accuracy, and what an oracle could know:\n\n{known}"
    return (
        f"## {result['title']}\n\n"
        f"{asked}; {seeds_text(result)}; {counts_text(result)}\n\n"
        f"{to_markdown(results_frame(result['rows']))}{below}"
    )


def seeds_text(result: dict) -> str:
    """How often what a table compares was trained; of the family, how often each system."""
    if "systems" not in result:
        of = {row["method"]: row["seeds"] for row in result["rows"] if row["seeds"]}
        told = ", ".join(f"{method} ({count})" for method, count in of.items())
        return f"seeds of the joints: {told or len(result['settings']['seeds'])}"
    often = Counter(cell.rpartition("-")[0] for cell in result["systems"])
    if len(set(often.values())) == 1 and (times := max(often.values())) > 1:
        return f"every system trained {times} times"
    several = [f"{SYSTEMS[name].title} {times} times" for name, times in often.items() if times > 1]
    return ", ".join(["every system trained once", *several]).replace("once, ", "once, but ", 1)


def cost_text(results: list[dict]) -> str:
    """What the paper's tables together took, and on what."""
    about = [r["provenance"] for r in results if not r["table"].startswith(claims.FAMILY)]
    minutes = busy_seconds(about) / 60
    memory = max(one["peak_memory_mb"] for one in about)
    machines = {
        f"{one['hardware']['processor']}, {one['hardware']['cores']} cores" for one in about
    }
    return (
        f"The paper's tables took {minutes:.0f} minutes in the runs that made them (one that is "
        "made again alone adds its own; one run of all takes less), and at most "
        f"{memory:,.0f} MB a table ({' and '.join(sorted(machines))})."
    )


def stages_text(stages: dict) -> str:
    """What each stage of the mini world's pretraining took, if kept, and the aims it missed."""
    rows = [
        (f"`{name}`", f"{stage['steps']:,}", f"{stage['seconds'] / 3600:.1f} h",
         f"{stage['machine']['cores']}, {stage['machine']['processor']}",
         stage["git_commit"][:10], stage.get("course", "–"))
        for name, stage in stages.items() if "seconds" in stage
    ]  # fmt: skip
    lost = ", ".join(f"`{name}`" for name, stage in stages.items() if "seconds" not in stage)
    table = _table(("stage", "steps", "time", "cores", "commit", "course"), rows)
    missed = [
        (f"`{name}`", f"`{measure}`", f"{stage['targets'][measure]:g}", f"{reached:.3f}")
        for name, stage in stages.items()
        for measure, reached in stage["missed"].items()
    ]
    parts = [table]
    if lost:
        parts.append(f"When, where and from which commit {lost} were made was not kept.")
    if missed:
        aims = _table(("stage", "measure on held-out data", "aim", "reached"), missed)
        parts += ["Of all aims these were missed:", aims]
    return "\n\n".join(parts)


def reference_runs(folder: Path) -> list[dict]:
    """The committed results of all tables, the family's too, in their order."""
    ready = [table for table in TABLES.values() if table.notebook and table.ready]
    return [read_json(folder / f"{table.name}.json", "results file") for table in ready]


def novel_runs(folder: Path) -> list[dict]:
    """Those on scenes never trained, of the tables that have one."""
    return [read_json(path, "results file") for path in sorted(folder.glob("*_novel.json"))]


def _table(heads, rows) -> str:
    """A markdown table without padding, which README has no room for."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(root: Path) -> None:
    """Write the pages and README's picture."""
    results = reference_runs(root / "results")
    stages = read_json(root / "data/mini/manifest.json", "weights manifest")["stages"]
    pages = {
        "README.md": lambda text: with_findings(with_course(text, root / "notebooks"), results),
        "docs/results.md": lambda text: with_results(text, results, novel_runs(root / "results")),
        "docs/protocols.md": lambda text: placed(text, "protocols", choices_markdown()),
        "docs/training.md": lambda text: placed(text, "stages", stages_text(stages)),
    }
    for name, renewed in pages.items():
        write_text(root / name, renewed(read_text(root / name)))
    [code] = PYTHON.findall(read_text(root / "README.md"))
    exec(code.replace("answer.png", str(root / "docs" / "answer.png")), {})


if __name__ == "__main__":
    main(repository_root())
