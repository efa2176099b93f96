"""Write README.md's course table and results: `python -m gill_lite.experiments.readme`.

The course table is read from the notebooks' first cells, the results from the reference runs.
"""

import re
from pathlib import Path

from gill_lite.experiments import reproduce
from gill_lite.files import read_json, read_text, write_text
from gill_lite.provenance import repository_root
from gill_lite.report import claims
from gill_lite.report import numbers as tables
from gill_lite.report import page as report

COURSE = re.compile(r"(<!-- course:[^>]*-->\n).*?(<!-- /course -->)", re.DOTALL)
PLACE = re.compile(r"(<!-- results:[^>]*-->\n).*?(<!-- /results -->)", re.DOTALL)


def results_section(result: dict) -> str:
    """Title, counts and table of a results file as markdown."""
    settings = result["settings"]
    asked = ", ".join(f"{value} {name.removeprefix('num_')}" for name, value in settings.items()
                      if name.startswith("num_"))  # fmt: skip
    seeds = len(settings["seeds"])
    title = result["title"] + "." * (not result["title"].endswith("?"))
    return (
        f"**{title}** {asked}; {seeds} seed{'s' * (seeds > 1)} of the joints; "
        f"{report.counts_text(result)}\n\n"
        f"{tables.to_markdown(tables.results_table(result['rows']))}\n"
    )


def claims_section(results: list[dict]) -> str:
    """How many claims are reproduced, and the verdict on each, as markdown."""
    rows = claims.all_verdicts(results)
    table = claims.verdict_table(rows)
    return f"**{claims.count_text(rows)}**\n\n{table.to_markdown(index=False)}\n"


def cost_section(results: list[dict]) -> str:
    """What all tables together took, and on what."""
    about = [result["provenance"] for result in results]
    minutes = sum(one["wall_seconds"] for one in about) / 60
    memory = max(one["peak_memory_mb"] for one in about)
    machines = {
        f"{one['hardware']['processor']}, {one['hardware']['cores']} cores" for one in about
    }
    return (
        f"All tables together, each picture drawn once: {minutes:.0f} minutes and at most "
        f"{memory:,.0f} MB ({' and '.join(sorted(machines))}).\n"
    )


def reference_runs(folder: Path) -> list[dict]:
    """The committed results of all tables, in their order."""
    return [
        read_json(folder / f"{table.name}.json", "results file")
        for table in reproduce.TABLES.values()
    ]


def course_table(folder: Path) -> str:
    """A row a notebook: link, what one does in it, what running it took."""
    import nbformat
    import pandas as pd

    rows = []
    for path in sorted(folder.glob("*.ipynb")):
        text = nbformat.read(path, as_version=4).cells[0].source
        [todo] = re.findall(r"\*\*What you will do:\*\* (.*?)\.?$", text, re.MULTILINE)
        [took] = re.findall(r"\*\*Measured:\*\* (\d+ seconds)", text)
        name = f"[{path.stem}](notebooks/{path.name})"
        rows.append({"notebook": name, "what you will do": todo, "measured": took})
    return pd.DataFrame(rows).to_markdown(index=False)


def with_course(readme: str, folder: Path) -> str:
    """The README's text with its course table made anew."""
    return COURSE.sub(lambda m: f"{m[1]}\n{course_table(folder)}\n\n{m[2]}", readme)


def with_results(readme: str, results: list[dict]) -> str:
    """The README's text with its results section made anew."""
    parts = [claims_section(results), cost_section(results), *map(results_section, results)]
    sections = "\n".join(parts)
    return PLACE.sub(lambda m: f"{m[1]}\n{sections}\n{m[2]}", readme)


if __name__ == "__main__":
    root = repository_root()
    readme = with_course(read_text(root / "README.md"), root / "notebooks")
    write_text(root / "README.md", with_results(readme, reference_runs(root / "results")))
