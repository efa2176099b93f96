"""One self-contained page from results/*.json: claims, tables, figures, where they come from."""

import base64
import re
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

import nbformat
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gill_lite.files import write_text
from gill_lite.report import claims, spread, summary
from gill_lite.report.numbers import results_frame

# Okabe and Ito's colours; the mark tells them apart in a grey print.
MARKS = dict(zip(summary.VERDICTS, ("●", "◐", "○", "…", "?", "–", "·"), strict=True))
COLORS = dict(
    zip(
        summary.VERDICTS,
        ("#0072B2", "#E69F00", "#D55E00", "#9a7aa0", "#7a7a7a", "#b8b8b8", "#d0d0d0"),
        strict=True,
    )
)
DISCUSSION = "**What came out"  # begins the cell in which a notebook discusses its verdicts


def write(
    output_dir, results: dict, problems: list[str], run: dict, source=None,
    coming: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write report.html into `output_dir` (atomically) and return its path.

    results, problems: as `summary.read_results` gives them; problems are shown on top. run: facts
    of the run, "profile" among them. source: the folder that holds the run's figures/ and
    notebooks/, by default `output_dir`. coming: titles of tables that are still computed; while
    there are any, a browser loads the page anew by itself.
    """
    page = as_html(Path(source or output_dir), results, problems, run, coming)
    return write_text(Path(output_dir) / "report.html", page)


def as_html(
    source: Path, results: dict, problems: list[str], run: dict, coming: Sequence[str] = ()
) -> str:
    """The whole page, from page.html.j2; see `write`."""
    templates = environment(autoescape=True)
    templates.filters |= {
        "frame": _html, "facts": _facts, "numbers": results_frame, "counts": summary.counts_text,
        "difference": summary.difference_text, "means": spread.means_frame,
        "by_lm": spread.verdicts_frame,
    }  # fmt: skip
    rows, notebooks = summary.claim_rows(results), _notebooks(source)
    verdicts = Counter(row["verdict"] for row in rows)
    topics = list(dict.fromkeys(row["table"] for row in rows))
    return templates.get_template("page.html.j2").render(
        run=run, problems=problems, coming=coming, colors=COLORS, marks=MARKS,
        count=claims.count_text(rows).split(" ", 1),
        counts={name: verdicts[name] for name in summary.VERDICTS if verdicts[name]},
        all_claims=[(topic, [r for r in rows if r["table"] == topic]) for topic in topics],
        sections=dict.fromkeys(topics)
        | {result["topic"]: name for name, result in reversed(results.items())},
        tables=[_table(name, result, source, notebooks) for name, result in results.items()],
        made=summary.made_frame(results), hashes=summary.hashes_frame(results),
        joints=summary.joints_frame(results), differing=summary.unlike(results),
    )  # fmt: skip


def environment(autoescape: bool) -> Environment:
    """The templates of this folder; a name that is not given is an error."""
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(
        loader=loader, autoescape=autoescape, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip


def _table(name: str, result: dict, source: Path, notebooks: dict) -> dict:
    """What the page shows of one table."""
    notebook = _notebook_of(result["table"], notebooks)
    cells = notebook.cells if notebook else []
    return {"name": name, "result": result, "discussion": _discussion(cells),
            "pictures": _pictures(source, result, cells)}  # fmt: skip


# ---- notebooks and figures ---------------------------------------------------------------


def _notebooks(source: Path) -> dict:
    """The run's notebooks by name, chapters last."""
    paths = sorted((source / "notebooks").glob("[0-9]*.ipynb"))
    paths.sort(key=lambda path: path.name.startswith("0"))
    return {path.stem: nbformat.read(path, as_version=4) for path in paths}


def _notebook_of(table: str, notebooks: dict):
    """The first notebook that names the table's results file, or else is called after it."""
    named = f'"{table.removesuffix(summary.OFFICIAL).removesuffix(summary.NOVEL)}.json"'
    for notebook in notebooks.values():
        if any(cell.cell_type == "code" and named in cell.source for cell in notebook.cells):
            return notebook
    return next((nb for name, nb in notebooks.items() if name.endswith(table)), None)


def _pictures(source: Path, result: dict, cells: list) -> list[tuple[str, str | None]]:
    """(name, base64 PNG) of a table's figures: from its files, else as its notebook shows them.

    A figure that is in neither is None; where the table names none, all of the notebook's count.
    """
    if not result["figures"]:
        return [("figure of the notebook", png) for cell in cells for png in _pngs(cell)]
    found = []
    for name in result["figures"]:
        path = source / name
        if path.is_file():
            png = base64.b64encode(path.read_bytes()).decode()
        else:
            shown = (png for cell in cells if path.name in cell.source for png in _pngs(cell))
            png = next(shown, None)
        found.append((path.stem.replace("_", " "), png))
    return found


def _pngs(cell) -> list[str]:
    """The PNGs a cell shows, as base64 text without line breaks."""
    data = [output.get("data", {}) for output in cell.get("outputs", [])]
    return [d["image/png"].replace("\n", "") for d in data if "image/png" in d]


def _discussion(cells: list) -> str:
    """What the notebook says of what came out and what did not; of its markdown, what it uses."""
    text = next((cell.source for cell in cells if cell.source.startswith(DISCUSSION)), "")
    text = escape(text, quote=False)
    for mark, tag in ((r"\*\*", "b"), (r"\*", "i"), ("`", "code")):
        text = re.sub(f"{mark}(.+?){mark}", rf"<{tag}>\1</{tag}>", text, flags=re.S)
    return "".join(f"<p>{part}</p>" for part in text.split("\n\n") if part)


# ---- frames ------------------------------------------------------------------------------


def _facts(facts: dict) -> pd.DataFrame:
    """A nested dictionary as a two-column table, inner keys joined to the outer ones."""
    values = pd.json_normalize(facts, sep=" · ").iloc[0].fillna("none").astype(str)  # no GPU
    return values.rename(lambda name: name.replace("_", " ")).to_frame("value")


def _html(frame: pd.DataFrame, kind: str = "") -> str:
    """A frame as an HTML table, by pandas; nothing where it is empty."""
    with pd.option_context("display.max_colwidth", None):  # or pandas cuts long statements
        table = frame.to_html(border=0, justify="left")
    return f'<div class="scroll {kind}">{table}</div>' if len(frame) else ""
