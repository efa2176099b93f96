"""The family tree: who takes up whose idea, drawn from the catalogue, for a page and for docs/.

`python -m gill_lite.family.tree` writes docs/family.svg and docs/family.md anew.
"""

import io
from collections import defaultdict
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from textwrap import wrap
from typing import Any

from gill_lite.family import BEFORE, DRAW, SEE, SYSTEMS, TEACH, System
from gill_lite.files import read_json, write_text
from gill_lite.report.numbers import METRICS, SEEING

TASKS = {  # what each is about, its colour (Okabe and Ito) and its notebook
    BEFORE: ("what came before", "#E5E5E5", "20_from_mixtures_to_pictures"),
    SEE: ("shown a picture", "#BFDDF2", "21_show_a_picture_to_a_language_model"),
    DRAW: ("draw from text", "#F7D9A0", "22_draw_a_picture_from_text"),
    TEACH: ("GILL's mapper, taught otherwise", "#CDE8DD", "24_what_should_teach_the_mapper"),
}
WIDE, HIGH = 2.3, 1.0  # of a box, in inches
STEP, ROW, LANE = 3.0, 1.2, 0.36  # from box to box, to the right and down; a line that passes by
LETTERS = 18  # of a title in one line
LINES = ("#000000", "#0072B2", "#D55E00", "#009E73", "#8A5A00", "#A0457A", "#707070")  # an idea's
SWEEPS = 12
RIGHT = (SEEING["right"], METRICS["attribute_accuracy"])

# What stands in a column: a system, or the idea of one on its way to a later column.
Slot = tuple[str, int]  # name, column


@cache
def depth(name: str) -> int:
    """How many generations stand above a system."""
    return 1 + max(map(depth, SYSTEMS[name].parents), default=-1)


def ways() -> list[list[Slot]]:
    """For each idea taken up, the slots its line goes through: parent, those it passes, child."""
    return [
        [(parent, column) for column in range(depth(parent), depth(name))] + [(name, depth(name))]
        for name, system in SYSTEMS.items()
        for parent in system.parents
    ]


def columns() -> list[list[Slot]]:
    """The slots from left to right, each column in an order that has few lines cross.

    Each slot goes where its neighbours to the left are in the middle, then those to the right, and
    so on (Sugiyama and others 1981).
    """
    left, right = defaultdict(list), defaultdict(list)  # each slot's neighbours
    for a, b in dict.fromkeys(step for way in ways() for step in pairwise(way)):
        right[a].append(b)
        left[b].append(a)
    by_task = sorted(SYSTEMS, key=lambda name: list(TASKS).index(SYSTEMS[name].task))
    slots = dict.fromkeys([(name, depth(name)) for name in by_task])
    slots |= dict.fromkeys(slot for way in ways() for slot in way)
    order = [[slot for slot in slots if slot[1] == c] for c in range(1 + max(c for _, c in slots))]
    at = {slot: row / len(column) for column in order for row, slot in enumerate(column)}
    for sweep in range(SWEEPS):
        for column in order if sweep % 2 else order[::-1]:
            beside = left if sweep % 2 else right
            at |= {slot: fmean(at[other] for other in beside[slot])
                   for slot in column if beside[slot]}  # fmt: skip
            column.sort(key=lambda slot: (at[slot], slot))
            at |= {slot: row / len(column) for row, slot in enumerate(column)}
    return order


def places() -> dict[Slot, tuple[float, float]]:
    """The centre of each slot: generations from left to right."""
    where: dict[Slot, tuple[float, float]] = {}
    for number, column in enumerate(columns()):
        high = [ROW if depth(slot[0]) == number else LANE for slot in column]
        top = -sum(high) / 2
        for slot, height in zip(column, high, strict=True):
            where[slot] = (STEP * number, top + height / 2)
            top += height
    lowest = min(y for _, y in where.values())
    return {slot: (x, y - lowest) for slot, (x, y) in where.items()}


def figure(*lit: str):
    """The tree as a matplotlib figure; a box leads to its system's source.

    lit: the tasks and systems whose boxes alone are coloured; all are unless some are named.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

    where = places()
    right, low = (max(axis) for axis in zip(*where.values()))
    made = Figure(figsize=(right + WIDE + 0.6, low + 2.2), layout="constrained", dpi=100)
    axis = made.add_subplot()
    axis.set(xlim=(-0.2 - WIDE / 2, right + WIDE / 2 + 0.2), ylim=(low + 0.9, -0.9), aspect=1)
    axis.axis("off")
    for way in ways():
        color = LINES[list(SYSTEMS).index(way[0][0]) % len(LINES)]
        axis.add_patch(FancyArrowPatch(path=line([where[slot] for slot in way]), color=color,
                                       arrowstyle="->", mutation_scale=12, lw=1.3))  # fmt: skip
    for name, system in SYSTEMS.items():
        x, y = where[name, depth(name)]
        colored = not lit or {name, system.task} & set(lit)
        axis.add_patch(FancyBboxPatch(
            (x - WIDE / 2, y - HIGH / 2), WIDE, HIGH, boxstyle="round,pad=0,rounding_size=0.1",
            facecolor=TASKS[system.task][1] if colored else "white", edgecolor="black",
            url=source(system), zorder=2,
        ))  # fmt: skip
        title = "\n".join(wrap(system.title, LETTERS))
        middle: dict[str, Any] = {"ha": "center", "va": "center"}
        axis.text(x, y - 0.15, title, fontsize=13, weight="bold", linespacing=1.0, **middle)
        axis.text(x, y + 0.32, system.source, fontsize=11, **middle)
    shown = {system.task for name, system in SYSTEMS.items() if not lit or
             {name, system.task} & set(lit)}  # fmt: skip
    kinds = [Patch(facecolor=color, edgecolor="black", label=what)
             for task, (what, color, _) in TASKS.items() if task in shown]  # fmt: skip
    made.legend(handles=kinds, loc="outside lower center", ncols=len(kinds), frameon=False,
                fontsize=13, title_fontsize=13,
                title="an arrow leads to who takes up the idea")  # fmt: skip
    return made


def line(centres: list[tuple[float, float]]):
    """A path from the first slot's right side to the last one's left, straight past those between
    and bent only from column to column."""
    from matplotlib.path import Path as Curve

    points, codes = [(centres[0][0] + WIDE / 2, centres[0][1])], [Curve.MOVETO]
    for x, y in centres[1:]:
        left, (before, height) = x - WIDE / 2, points[-1]
        middle = (before + left) / 2
        points += [(middle, height), (middle, y), (left, y)]
        codes += [Curve.CURVE4] * 3
        if (x, y) != centres[-1]:
            points.append((x + WIDE / 2, y))
            codes.append(Curve.LINETO)
    return Curve(points, codes)


def source(system: System) -> str:
    """Where its code is, as docs/ links it; what came before and has none is in its notebook."""
    path = system.path.replace(".", "/") + ".py"
    there = (Path(__file__).parent / Path(path).name).is_file()
    return f"../{path}" if there else notebook(system)


def notebook(system: System) -> str:
    """The notebook that shows it, as docs/ links it."""
    return f"../notebooks/{TASKS[system.task][2]}.ipynb"


def measured(results: Path) -> dict[str, tuple[str, str, str]]:
    """By title: numbers learned, minutes, and the share of right attributes on novel scenes, of
    captions or of pictures, from the committed runs."""
    found: dict[str, tuple[str, str, str]] = {}
    for task in (SEE, DRAW, TEACH):
        run = read_json(results / f"family_{task}.json", "results file")
        right = {row["method"]: f"{row['mean']:.2f}" for row in run["rows"]
                 if row["context"] == "novel scenes" and row["metric"] in RIGHT}  # fmt: skip
        for cell, cost in run["systems"].items():
            title = SYSTEMS[cell.rpartition("-")[0]].title
            minutes = str(cost.get("minutes", "–"))
            found.setdefault(title, (f"{cost['learned']:,}", minutes, right[title]))
    return found


def page(results: Path) -> str:
    """docs/family.md: the tree, the budgets, and a line a system."""
    from gill_lite.family.system import BUDGETS  # brings torch

    budgets = "; ".join(f"*{TASKS[task][0]}*: {budget.steps:,} steps of {budget.batch} pairs"
                        for task, budget in BUDGETS.items())  # fmt: skip
    heads = ("system", "after", "frozen", "learns", "by", "takes", "gives", "numbers learned",
             "minutes", "attributes right", "lectures", "shown in")  # fmt: skip
    rows = [heads, ("---",) * len(heads)]
    costs = measured(results)
    for s in SYSTEMS.values():
        shown = f"[{TASKS[s.task][2][:2]}]({notebook(s)})"
        rows.append((f"[{s.title}]({source(s)})", s.source, s.frozen, s.learns, s.loss, s.takes,
                     s.gives, *costs.get(s.title, ("–",) * 3), s.lecture, shown))  # fmt: skip
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        "# The family\n\nThe systems GILL comes from and leads to, each small, in one world. An "
        "arrow leads to who takes up the idea; a box, to its source.\n\n"
        "[![The family tree](family.svg)](family.svg)\n\nOpened by itself, the tree has a link in "
        "each box. *Attributes right* are those that captions name of novel scenes, or those of "
        "pictures drawn of novel captions: compare within a task, and with no paper's number.\n\n"
        "All systems of a task that `gill-lite family` trains "
        f"have one budget, over all their stages. {budgets}. Who was trained elsewhere (CLIP, "
        "FROMAGe, GILL, GLIDE, latent diffusion) had their own; MiniGPT-4 stands on BLIP-2, whose "
        "budget is not counted again. Minutes are those of the steps: what was computed once "
        f"before them (latents, codes, BLIP's captions of the web) is not in them.\n\n{table}\n"
    )


def write(folder: Path, results: Path) -> None:
    """family.svg and family.md in `folder`, the same bytes every time."""
    import matplotlib

    settings = {"svg.hashsalt": "family", "svg.fonttype": "none"}
    svg = io.StringIO()
    with matplotlib.rc_context(settings):
        figure().savefig(svg, format="svg", metadata={"Date": None})
    lines = (line.rstrip() for line in svg.getvalue().splitlines())
    write_text(folder / "family.svg", "\n".join(lines) + "\n")
    write_text(folder / "family.md", page(results))


if __name__ == "__main__":
    from gill_lite.provenance import repository_root

    write(repository_root() / "docs", repository_root() / "results")
