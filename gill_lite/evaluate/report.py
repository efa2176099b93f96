"""One self-contained page, and the terminal's text, from results/*.json."""

import base64
from html import escape
from pathlib import Path

from gill_lite.evaluate.claims import verdict_table
from gill_lite.evaluate.tables import flat, results_table, to_html
from gill_lite.files import write_text

STYLE = """
body { font: 17px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; color: #1a1a1a; background: #fff }
h1 { font-size: 1.7rem } h2 { font-size: 1.35rem; margin-top: 2.5rem } h3 { font-size: 1.1rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem }
th, td { padding: .35rem .8rem; text-align: left; border-bottom: 1px solid #ccc }
thead th { border-bottom: 2px solid #333; background: #f4f4f4 }
img { max-width: 100%; height: auto; border: 1px solid #ddd; margin: .6rem 0 }
.failed { border-left: .4rem solid #b34700; background: #fff4ec; padding: .6rem 1rem }
code { font-size: .9em; overflow-wrap: anywhere }
"""
INTRODUCTION = (
    "Each value is a mean over examples with its 95 % interval in brackets. The mini profile "
    "runs on a small drawn world: compare which method is ahead and where, never its level "
    "with the paper's."
)


def counts_text(result: dict) -> str:
    """How many examples were scored, of how many, and why others were not."""
    counts = result["counts"]
    text = f"{counts['scored']} of {counts['eligible']} eligible examples scored"
    reasons = ", ".join(f"{reason}: {n}" for reason, n in counts["skipped"].items())
    return f"{text}; skipped: {reasons}." if reasons else f"{text}; none skipped."


def as_text(result: dict) -> str:
    """Table, verdicts and counts for the terminal."""
    verdicts = verdict_table(result["verdicts"])[["verdict", "our difference", "the paper says"]]
    parts = [
        result["title"],
        flat(results_table(result["rows"])).to_string(index=False),
        verdicts.to_string(index=False) if len(verdicts) else "no verdicts",
        counts_text(result),
    ]
    return "\n\n".join(parts) + "\n"


def as_html(output_dir: Path, results: dict, run: dict, problems: list[str]) -> str:
    """The whole page. results: table name to the content of its results file."""
    sections = [_table_section(output_dir, result) for result in results.values()]
    failed = "".join(f'<p class="failed">{escape(text)}</p>' for text in problems)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>gill-lite: reproduction</title><style>{STYLE}</style></head><body>"
        f"<h1>gill-lite: the paper's tables, profile {escape(run['profile'])}</h1>"
        f"<p>{INTRODUCTION}</p>{failed}{''.join(sections)}"
        f"<h2>Where these numbers come from</h2>{_facts(run)}</body></html>\n"
    )


def write(output_dir: Path, results: dict, run: dict, problems: list[str]) -> Path:
    """Write report.html into `output_dir` (atomically) and return its path."""
    return write_text(output_dir / "report.html", as_html(output_dir, results, run, problems))


def _table_section(output_dir: Path, result: dict) -> str:
    pictures = [output_dir / name for name in result["figures"]]
    pictures = pictures or _notebook_pictures(output_dir, result["table"])
    return (
        f"<h2>{escape(result['title'])}</h2>{_html(results_table(result['rows']))}"
        f"<h3>What the paper says, and what we find</h3>{_verdicts(result)}"
        f"<p>{escape(counts_text(result))}</p>"
        f"{''.join(_picture(p, result['title']) for p in pictures)}"
        f"<details><summary>Provenance of this table</summary>{_facts(result['provenance'])}"
        "</details>"
    )


def _verdicts(result: dict) -> str:
    verdicts = verdict_table(result["verdicts"])
    return _html(verdicts.set_index(verdicts.columns[0]))


def _picture(picture: Path | str, title: str) -> str:
    """An <img> holding the PNG itself: a path, or the base64 text a notebook stores."""
    if isinstance(picture, Path):
        name = picture.stem.replace("_", " ")
        data = base64.b64encode(picture.read_bytes()).decode()
    else:
        name, data = "figure of the notebook", picture.replace("\n", "")
    alt = escape(f"{title}: {name}", quote=True)
    return f'<p><img alt="{alt}" src="data:image/png;base64,{data}"></p>'


def _notebook_pictures(output_dir: Path, table: str) -> list[str]:
    """The PNG figures of the executed notebook of `table`, as base64 text."""
    import nbformat

    found = []
    for path in sorted((output_dir / "notebooks").glob(f"*{table}.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            data = [output.get("data", {}) for output in cell.get("outputs", [])]
            found += [d["image/png"] for d in data if "image/png" in d]
    return found


def _facts(facts: dict) -> str:
    """A nested dictionary as a two-column table, inner keys joined to the outer ones."""
    import pandas as pd

    values = pd.json_normalize(facts, sep=" · ").iloc[0]
    values = values.fillna("none").astype(str)  # no GPU, for example
    return _html(values.rename(lambda name: name.replace("_", " ")).to_frame("value"))


def _html(frame) -> str:
    import pandas as pd

    with pd.option_context("display.max_colwidth", None):  # or pandas cuts long statements
        return f'<div class="scroll">{to_html(frame)}</div>'
