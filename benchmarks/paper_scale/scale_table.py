"""The table of docs/paper_scale.md: its rows with and without measures, and where they are kept.

The measures are taken by benchmarks/paper_scale/paper_scale.py and lie in results/paper_scale.json.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path

from gill_lite.errors import GillError
from gill_lite.experiments.readme import placed
from gill_lite.files import read_json, read_text, write_json, write_text
from gill_lite.profiles import PAPER

KINDS = ("train", "decode", "draw", "search")
COMMAND = "python -m benchmarks.paper_scale"
HEADS = ("what", "median", "lowest to highest", "GPU memory", "the paper", "card", "command")
NONE, UNMEASURED = "–", "not measured"
VERSIONS = ("torch", "transformers", "diffusers")
GIB = 2**30


@dataclass(frozen=True)
class Settings:
    """How the measures are taken; the defaults are those of the page's table."""

    batch_size: int = PAPER.batch_size  # pairs of a training step
    gradient_accumulation_steps: int = 1
    prompt_tokens: int = 300
    new_tokens: int = 128
    repeats: int = 6
    batches: tuple[int, ...] = (1, 8)  # prompts answered, pictures drawn at once
    pictures: int = 3_300_000  # of the index, as many as CC3M has
    queries: tuple[int, ...] = (1, 16, 256)  # searched at once
    plain: bool = False  # measure the plain ways, which the fast ones are held against
    papers: bool = True  # whether the models have the shapes of the paper's

    def __post_init__(self):
        if self.new_tokens < 2:
            raise GillError(f"new_tokens must be at least 2, not {self.new_tokens}")

    @property
    def way(self) -> str:
        """What a row's name says of it."""
        return ", plain" if self.plain else ""


# ---- rows, with or without measures -------------------------------------------------------


def line(what: str, unit: str, timing=None, convert=None, paper: str = NONE) -> dict:
    """One row, JSON-ready; `convert` makes a number of the unit from a run's seconds."""
    row = {"what": what, "unit": unit, "paper": paper}
    if timing is None:
        return row
    values = [convert(seconds) for seconds in timing.seconds]
    peak = None if timing.peak is None else timing.peak / GIB
    row |= {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return row | {"peak_gib": peak, "seconds": [round(value, 6) for value in timing.seconds]}


def train_rows(settings: Settings, timing=None) -> list[dict]:
    """A training step, and the paper's training by it if models and batch are the paper's."""
    what = f"training step, {settings.batch_size} pairs"
    if settings.gradient_accumulation_steps > 1:
        what += f" in {settings.gradient_accumulation_steps} micro-batches"
    rows = [line(what, "ms", timing, lambda seconds: seconds * 1e3)]
    if settings.papers and settings.batch_size == PAPER.batch_size:
        hours = PAPER.steps / 3600
        what = f"{PAPER.steps:,} such steps, extrapolated"
        rows.append(line(what, "GPU-hours", timing, lambda s: s * hours, paper_cost()))
    return rows


def decode_rows(settings: Settings, batch: int, first=None, rest=None) -> list[dict]:
    """Reading the prompts, then decoding behind them."""
    new = settings.new_tokens - 1
    tokens = 0 if rest is None else sum(map(len, rest.last.ids)) - batch
    read = f"reading {settings.prompt_tokens} tokens, batch {batch}"
    said = f"decoding {new} tokens behind them, batch {batch}{settings.way}"
    return [
        line(read, "ms", first, lambda seconds: seconds * 1e3),
        line(said, "tokens/s", rest, lambda seconds: tokens / seconds),
    ]


def draw_rows(
    settings: Settings, batch: int, timing=None, steps: int = PAPER.num_inference_steps
) -> list[dict]:
    """Drawing pictures."""
    count = 0 if timing is None else len(timing.last)
    what = f"drawing, {steps} steps with guidance, batch {batch}{settings.way}"
    return [line(what, "images/s", timing, lambda seconds: count / seconds)]


def rounding_rows(settings: Settings, fast=None, plain=None) -> list[dict]:
    """How far the fast way's picture is from the plain one's, both (1, 3, H, W) in 0..1."""
    if settings.plain:
        return []
    row = line("a pixel drawn fast beside drawn plainly, in each picture", "of 255")
    if fast is not None:
        moved = (fast - plain).abs().flatten() * 255
        row |= {"median": float(moved.median()), "low": float(moved.min())}
        row |= {"high": float(moved.max()), "peak_gib": None, "seconds": []}
    return [row]


def search_rows(settings: Settings, queries: int, timing=None) -> list[dict]:
    """Searching the index."""
    what = f"searching {settings.pictures:,} pictures, top 5, {queries} queries"
    return [line(what, "ms", timing, lambda seconds: seconds * 1e3)]


def empty_rows(kind: str) -> list[dict]:
    """The rows of a measure that was not taken."""
    settings = Settings()
    if kind == "train":
        return train_rows(settings)
    if kind == "search":
        return [row for count in settings.queries for row in search_rows(settings, count)]
    rows = {"decode": decode_rows, "draw": draw_rows}[kind]
    found = [row for batch in settings.batches for row in rows(settings, batch)]
    return found + (rounding_rows(settings) if kind == "draw" else [])


def paper_cost() -> str:
    """What the paper's training took, with where it says so."""
    from gill_lite.report.numbers import paper_number, paper_results

    paper = paper_results()
    asked = [(paper, "cost", "gill", "training", what) for what in ("days", "a6000_gpus")]
    days, gpus = (paper_number(*where)[0] for where in asked)
    if days is None or gpus is None:
        raise GillError("data/paper_results.csv lacks what the paper's training cost")
    source = paper[(paper.table == "cost") & (paper.metric == "days")].iloc[0].source
    hours = f"{days * 24 * gpus:.0f} A6000-hours"
    return f"{hours}: {days:.0f} days on {gpus:.0f} A6000; {source}"


# ---- what is written ----------------------------------------------------------------------


Measures = dict[str, dict[str, dict]]  # kind -> card -> {"rows", "about"}


def known_measures(path: Path) -> Measures:
    """The measures taken before; none where there is no file.

    Raises GillError where the file is something else.
    """
    if not path.exists():
        return {}
    found = read_json(path, "measures")
    for kind, cards in found.items():
        entries = cards.values() if isinstance(cards, dict) else [()]
        if kind not in KINDS or any(not {"rows", "about"} <= set(entry) for entry in entries):
            raise GillError(f"{path} was not written by {COMMAND} ('{kind}'); move it away")
    return found


def write(kind: str, rows: list[dict], about: dict, output: Path, doc: Path) -> None:
    """Put a measure beside those of other kinds and other cards, and the table into the page."""
    found = known_measures(output)
    found.setdefault(kind, {})[card_of(about)] = {"rows": rows, "about": about}
    page = with_table(read_text(doc, "page"), found, doc)
    write_json(output, found)
    write_text(doc, page)


def card_of(about: dict) -> str:
    """The card a measure was taken on, and whether in the plain way: what it stands under."""
    return about["machine"] + (", plain" if about.get("plain") else "")


def with_table(text: str, found: Measures, path="the page") -> str:
    """The page's text with its table made anew. GillError where it has no place for one."""
    return placed(text, "paper_scale", table(found), path)


def table(found: Measures) -> str:
    """Every row as markdown; what was not measured stands there without a number."""
    from tabulate import tabulate

    cells = []
    for kind in KINDS:
        cards = found.get(kind, {"": {"rows": empty_rows(kind), "about": {}}})
        for _, entry in sorted(cards.items()):
            command = entry["about"].get("command", f"{COMMAND} --measure {kind}")
            card = entry["about"].get("machine", NONE)
            cells += [[*row_cells(row), card, f"`{command}`"] for row in entry["rows"]]
    return tabulate(cells, HEADS, tablefmt="github", disable_numparse=True) + made_with(found)


def row_cells(row: dict) -> list[str]:
    """The cells that the measure itself fills."""
    what = f"{row['what']} ({row['unit']})"
    if "median" not in row:
        return [what, UNMEASURED, NONE, NONE, row["paper"]]
    spread = f"{short(row['low'])} to {short(row['high'])}"
    peak = NONE if row["peak_gib"] is None else f"{row['peak_gib']:.1f} GiB"
    return [what, short(row["median"]), spread, peak, row["paper"]]


def made_with(found: Measures) -> str:
    """A line a measure: card, models, versions, commit and day; empty without measures."""
    lines = []
    for kind in (kind for kind in KINDS if kind in found):
        for card, entry in sorted(found[kind].items()):
            about = entry["about"]
            versions = ", ".join(f"{name} {about['libraries'][name]}" for name in VERSIONS)
            lines.append(
                f"- `{kind}` on {card}: {about['lm']}; {versions}, CUDA {about['cuda']}; commit "
                f"{about['git_commit'][:10]}; {about['finished_utc']} UTC"
            )
    return "\n\n" + "\n".join(lines) if lines else ""


def short(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
