"""Write README.md's course table and results: `python -m gill_lite.readme`.

The course table is read from the notebooks' first cells, the results from the reference run.
"""

import re
from pathlib import Path

from gill_lite.evaluate import claims, tables
from gill_lite.evaluate.provenance import repository_root
from gill_lite.files import read_json, read_text, write_text

COURSE = re.compile(r"(<!-- course:[^>]*-->\n).*?(<!-- /course -->)", re.DOTALL)
PLACE = re.compile(r"(<!-- results:[^>]*-->\n).*?(<!-- /results -->)", re.DOTALL)


def results_section(result: dict) -> str:
    """Table, verdicts and counts of a results file as markdown."""
    counts, settings = result["counts"], result["settings"]
    verdicts = claims.verdict_table(result["verdicts"])
    return (
        f"**{result['title']}.** Mean and 95 % bootstrap interval over {settings['num_stories']} "
        f"stories; GILL over {len(settings['seeds'])} seeds of its joints; {counts['scored']} of "
        f"{counts['eligible']} pictures scored. Compare which method is ahead, not levels.\n\n"
        f"{tables.to_markdown(tables.results_table(result['rows']))}\n\n"
        f"{verdicts.to_markdown(index=False)}\n"
    )


def course_table(folder: Path) -> str:
    """A row a notebook: link, what one does in it, what running it took."""
    import nbformat
    import pandas as pd

    rows = []
    for path in sorted(folder.glob("*.ipynb")):
        text = nbformat.read(path, as_version=4).cells[0].source
        todo = re.search(r"\*\*What you will do:\*\* (.*?)\.?$", text, re.MULTILINE)[1]
        took = re.search(r"\*\*Measured:\*\* (\d+ seconds)", text)[1]
        name = f"[{path.stem}](notebooks/{path.name})"
        rows.append({"notebook": name, "what you will do": todo, "measured": took})
    return pd.DataFrame(rows).to_markdown(index=False)


def with_course(readme: str, folder: Path) -> str:
    """The README's text with its course table made anew."""
    return COURSE.sub(lambda m: f"{m[1]}\n{course_table(folder)}\n\n{m[2]}", readme)


def with_results(readme: str, result: dict) -> str:
    """The README's text with its results section made anew."""
    return PLACE.sub(lambda m: f"{m[1]}\n{results_section(result)}\n{m[2]}", readme)


if __name__ == "__main__":
    root = repository_root()
    reference = read_json(root / "results" / "table1_vist.json", "results file")
    readme = with_course(read_text(root / "README.md"), root / "notebooks")
    write_text(root / "README.md", with_results(readme, reference))
