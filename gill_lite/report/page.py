"""One self-contained page from results/*.json: claims, tables, figures, where they come from."""

import base64
import re
from collections import Counter
from html import escape
from pathlib import Path

from gill_lite.files import write_text
from gill_lite.report import claims, spread
from gill_lite.report.numbers import results_table, to_html
from gill_lite.report.summary import (
    OFFICIAL,
    VERDICTS,
    as_text,
    claim_rows,
    complete,
    counts_text,
    difference_text,
    hashes_table,
    joints_table,
    made_table,
    read_results,
    topic_of,
    unlike,
)

__all__ = ["as_html", "as_text", "claim_rows", "read_results", "write"]

# Okabe and Ito's colours; the mark tells them apart in a grey print.
MARKS = dict(zip(VERDICTS, ("●", "◐", "○", "?", "–"), strict=True))
COLORS = dict(zip(VERDICTS, ("#0072B2", "#E69F00", "#D55E00", "#7a7a7a", "#b8b8b8"), strict=True))
DISCUSSION = "**What did not come out"  # begins the cell in which a notebook discusses it
STYLE = """
html { font-size: 16px } body { font: 1rem/1.5 system-ui, sans-serif; max-width: 72rem;
  margin: 2rem auto; padding: 0 1.2rem; color: #1a1a1a; background: #fff }
h1 { font-size: 1.5rem; margin-bottom: 0 } h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem }
h2 { font-size: 1.3rem; margin-top: 3rem; padding-top: .6rem; border-top: 2px solid #333 }
p { max-width: 50rem } p.count { max-width: none } .source, .small { color: #555; font-size: .93em }
.count { font-size: 1.15rem; margin: 1.2rem 0 .5rem } .count b { font-size: 2.6rem }
.bar { display: flex; height: 1.1rem; max-width: 50rem; gap: 2px; margin-bottom: .5rem }
.legend > span { margin-right: 1.4rem; white-space: nowrap } .mark { font-size: 1.1em }
nav a { margin-right: 1.2rem } .scroll { overflow-x: auto } summary { cursor: pointer }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }
th, td { padding: .32em .75em; text-align: left; vertical-align: top;
  border-bottom: 1px solid #d5d5d5 }
thead th { background: #f4f4f4; border-bottom: 0 } tbody th { font-weight: 500 }
thead tr:last-child th { border-bottom: 2px solid #333 }
.claims { width: 100% } .claims td:first-child { width: 42% } .claims td:last-child { width: 17% }
.numbers td, .nowrap { white-space: nowrap } tr.topic th { background: #f4f4f4; padding-top: .8em }
tr.control td { color: #444; background: #fafafa } tr.control td:first-child { padding-left: 2em }
figure { margin: 1rem 0 } img { max-width: 100%; height: auto; border: 1px solid #ddd }
.failed { border-left: .4rem solid #b34700; background: #fff4ec; padding: .6rem 1rem }
.discussion { border-left: .3rem solid #0072B2; padding-left: 1rem }
code { font-size: .86em; overflow-wrap: anywhere }
@page { size: A4; margin: 13mm }
@media print {
  html { font-size: 9.5pt } body { max-width: none; margin: 0; padding: 0 } nav { display: none }
  table { font-size: 7.8pt } .scroll { overflow: visible } img { max-height: 20cm }
  h2, h3 { break-after: avoid } tr, figure, .failed { break-inside: avoid }
  .bar, th { -webkit-print-color-adjust: exact; print-color-adjust: exact }
  details::details-content { content-visibility: visible; height: auto }
}
"""
INTRODUCTION = (
    "Each value is a mean over examples with its 95 % interval in brackets. The mini profile "
    "runs on a small drawn world: compare which method is ahead and where, never its level "
    "with the paper's. A claim is reproduced when the whole interval of its difference lies on "
    "the claimed side; same direction, within noise, when only the mean does."
)


def write(output_dir, results: dict, run: dict, problems: list[str], source=None) -> Path:
    """Write report.html into `output_dir` (atomically) and return its path.

    results: as `read_results` gives them. run: facts of the run, "profile" among them. problems:
    sentences shown on top. source: the folder that holds the run's figures/ and notebooks/, by
    default `output_dir`.
    """
    page = as_html(Path(source or output_dir), results, run, problems)
    return write_text(Path(output_dir) / "report.html", page)


def as_html(source: Path, results: dict, run: dict, problems: list[str]) -> str:
    """The whole page; see `write`."""
    results = {name: complete(result) for name, result in results.items()}
    problems = problems + [r["problem"] for r in results.values() if "problem" in r]
    notebooks, rows = _notebooks(source), claim_rows(results)
    links = "".join(f'<a href="#{escape(n)}">{escape(n)}</a>' for n in [*results, "provenance"])
    failed = "".join(f'<p class="failed">{escape(text)}</p>' for text in problems)
    sections = "".join(_section(n, r, source, notebooks) for n, r in results.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>gill-lite: reproduction</title><style>{STYLE}</style></head><body>"
        f"<h1>gill-lite: the paper's claims, profile {escape(str(run['profile']))}</h1>"
        f"{_count(rows)}{failed}<nav>{links}</nav><p>{INTRODUCTION}</p>"
        f"<h2>All claims</h2>{_claims(rows, results)}{sections}"
        f'<h2 id="provenance">Where these numbers come from</h2>{_provenance(results, run)}'
        "</body></html>\n"
    )


# ---- claims ------------------------------------------------------------------------------


def _count(rows: list[dict]) -> str:
    """How many claims are reproduced: in large figures, as a bar, and with its legend."""
    counts = Counter(row["verdict"] for row in rows)
    there = [name for name in VERDICTS if counts[name]]
    bar = "".join(f'<span style="flex:{counts[v]};background:{COLORS[v]}"></span>' for v in there)
    legend = "".join(f"<span>{_verdict(v)}: {counts[v]}</span>" for v in there)
    first, rest = claims.count_text(rows).split(" ", 1)
    return (
        f'<p class="count"><b>{first}</b> {escape(rest)}</p>'
        f'<div class="bar">{bar}</div><p class="legend">{legend}</p>'
    )


def _verdict(name: str) -> str:
    color, mark = COLORS.get(name, "#000"), MARKS.get(name, "?")
    return f'<span class="mark" style="color:{color}">{mark}</span> {escape(name)}'


def _claims(rows: list[dict], results: dict) -> str:
    """All claims, grouped by table; the controls of a table stand below its claims."""
    sections = {topic_of(result): name for name, result in reversed(results.items())}
    lines = []
    for topic in dict.fromkeys(row["table"] for row in rows):
        part = [row for row in rows if row["table"] == topic]
        title = escape(part[0]["title"])
        if topic in sections:
            title = f'<a href="#{escape(sections[topic])}">{title}</a>'
        lines.append(f'<tr class="topic"><th colspan="4">{title}</th></tr>')
        lines += [_claim(row) for row in part]
        lines += [_claim(row, "control") for row in part[0]["controls"]]
    heads = ("the paper says", "statistic", "our difference", "verdict")
    head = "".join(f"<th>{text}</th>" for text in heads)
    return (
        f'<div class="scroll"><table class="claims"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _claim(row: dict, kind: str = "claim") -> str:
    statement = escape(row["statement"])
    if kind == "control":
        statement = f"our control: {statement}"
    elif row["source"]:
        statement += f'<br><span class="source">{escape(row["source"])}</span>'
    return (
        f'<tr class="{kind}"><td>{statement}</td><td><code>{escape(row["statistic"])}</code></td>'
        f'<td class="nowrap">{escape(difference_text(row))}</td>'
        f"<td>{_verdict(row['verdict'])}</td></tr>"
    )


# ---- tables ------------------------------------------------------------------------------


def _section(name: str, result: dict, source: Path, notebooks: dict) -> str:
    notebook = _notebook_of(result["table"], notebooks)
    command = result["provenance"].get("command", "")
    parts = [f'<h2 id="{escape(name)}">{escape(result["title"])}</h2>']
    parts += [f"<p>Made by <code>{escape(command)}</code></p>"] if command else []
    parts += [_html(results_table(result["rows"]), "numbers")] if result["rows"] else []
    parts.append(f"<p>{escape(counts_text(result))}</p>")
    pictures = _pictures(source, result, notebook)
    parts += [_picture(*picture, result["title"]) for picture in pictures]
    parts += [_judged(result), _spread(result), _discussion(notebook)]
    facts = _facts({"settings": result["settings"], **result["provenance"]})
    details = f"<details><summary>Everything recorded about this table</summary>{facts}</details>"
    return "".join([*parts, details])


def _judged(result: dict) -> str:
    """The verdicts on the claims about one table, its controls below."""
    if not result["verdicts"]:
        return ""
    lines = [*map(_claim, result["verdicts"]), *(_claim(r, "control") for r in result["controls"])]
    return (
        "<h3>What the paper says, and what we find</h3>"
        f'<div class="scroll"><table class="claims"><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _spread(result: dict) -> str:
    """How much hangs on the language model, beside how much hangs on the joints' seed."""
    if not result["spread"]:
        return ""
    verdicts = spread.verdict_table(result["verdicts_by_lm"])
    by_lm = f"<p>The verdicts on each, one seed of the joints:</p>{_html(verdicts)}"
    return (
        "<h3>How much hangs on the one language model</h3><p>Mean CLIP similarity of GILL on each "
        "language model, with joints of its own, and the standard deviation over them beside that "
        f"over the joints' seeds.</p>{_html(spread.table(result['spread']), 'numbers')}"
        f"{by_lm if len(verdicts) else ''}"
    )


# ---- notebooks and figures ---------------------------------------------------------------


def _notebooks(source: Path) -> dict:
    """The run's notebooks by name."""
    import nbformat

    paths = sorted((source / "notebooks").glob("[0-9]*.ipynb"))
    return {path.stem: nbformat.read(path, as_version=4) for path in paths}


def _notebook_of(table: str, notebooks: dict):
    """The first notebook, chapters last, that names the table's file or is called after it."""
    named = f'"{table.removesuffix(OFFICIAL)}.json"'
    for _, notebook in sorted(notebooks.items(), key=lambda item: item[0].startswith("0")):
        if any(cell.cell_type == "code" and named in cell.source for cell in notebook.cells):
            return notebook
    return next((nb for name, nb in notebooks.items() if name.endswith(table)), None)


def _pictures(source: Path, result: dict, notebook) -> list[tuple[str, str | None]]:
    """(name, base64 PNG) of a table's figures: from its files, else as its notebook shows them.

    A figure that is in neither is None; where the table names none, all of the notebook's count.
    """
    cells = notebook.cells if notebook else []
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


def _picture(name: str, png: str | None, title: str) -> str:
    alt = escape(f"{title}: {name}", quote=True)
    if png is None:
        return f'<p class="small">{alt}: this figure is not at hand.</p>'
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{png}"></figure>'


def _discussion(notebook) -> str:
    """What the notebook says of claims that did not come out."""
    cells = [c for c in notebook.cells if c.source.startswith(DISCUSSION)] if notebook else []
    if not cells:
        return ""
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(cells[0].source, quote=False), flags=re.S)
    text = re.sub(r"\*(.+?)\*", r"<i>\1</i>", text, flags=re.S)
    text = re.sub(r"`(.+?)`", r"<code>\1</code>", text)
    paragraphs = "".join(f"<p>{part}</p>" for part in text.split("\n\n"))
    return (
        f'<div class="discussion">{paragraphs}<p class="small">From the notebook, written about '
        "the committed reference run.</p></div>"
    )


# ---- provenance --------------------------------------------------------------------------


def _provenance(results: dict, run: dict) -> str:
    if not results:
        return _facts(run)
    differing, joints = unlike(results), joints_table(results)
    note = f"<p>The tables were not all made alike: {escape(differing)}.</p>" if differing else ""
    return (
        "<h3>The command for every number</h3><p>To be typed in the repository, with what its "
        f"lock file pins installed.</p>{_html(made_table(results))}"
        f"<h3>Code, lock file, weights and data</h3>{note}{_html(hashes_table(results))}"
        + (f"<h3>The learned joints</h3>{_html(joints)}" if len(joints) else "")
        + f"<h3>This report</h3>{_facts(run)}"
    )


def _facts(facts: dict) -> str:
    """A nested dictionary as a two-column table, inner keys joined to the outer ones."""
    import pandas as pd

    if not facts:
        return "<p>Nothing is recorded.</p>"
    values = pd.json_normalize(facts, sep=" · ").iloc[0].fillna("none").astype(str)  # no GPU
    return _html(values.rename(lambda name: name.replace("_", " ")).to_frame("value"))


def _html(frame, kind: str = "") -> str:
    import pandas as pd

    with pd.option_context("display.max_colwidth", None):  # or pandas cuts long statements
        return f'<div class="scroll {kind}">{to_html(frame)}</div>'
