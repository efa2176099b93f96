"""The family tree: who takes up whose idea, drawn from the catalogue, for a page and for docs/.

`python -m gill_lite.family.tree` writes docs/family.svg and docs/family.md anew.
"""

from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Any

from gill_lite.family import BEFORE, DRAW, SEE, SYSTEMS, TEACH, System
from gill_lite.files import write_text

TASKS = {  # what each is about, its colour (Okabe and Ito) and its notebook
    BEFORE: ("what came before", "#E5E5E5", "20_from_mixtures_to_pictures"),
    SEE: ("shown a picture", "#BFDDF2", "21_show_a_picture_to_a_language_model"),
    DRAW: ("draw from text", "#F7D9A0", "22_draw_a_picture_from_text"),
    TEACH: ("GILL's mapper, taught otherwise", "#CDE8DD", "24_what_should_teach_the_mapper"),
}
WIDE, HIGH = 2.3, 1.0  # of a box, in inches
STEP, ROW = 2.75, 1.2  # from box to box, to the right and down
LETTERS = 18  # of a title in one line


@cache
def depth(name: str) -> int:
    """How many generations stand above a system."""
    return 1 + max(map(depth, SYSTEMS[name].parents), default=-1)


def places() -> dict[str, tuple[float, float]]:
    """The centre of each system's box: generations from left to right, tasks from top to bottom."""
    columns: dict[int, list[str]] = {}
    for name in sorted(SYSTEMS, key=lambda name: list(TASKS).index(SYSTEMS[name].task)):
        columns.setdefault(depth(name), []).append(name)
    tallest = max(map(len, columns.values()))
    return {
        name: (STEP * column, ROW * (row + (tallest - len(names)) / 2))
        for column, names in columns.items()
        for row, name in enumerate(names)
    }


def figure(lit: str = ""):
    """The tree as a matplotlib figure; a box leads to its system's source.

    lit: the task whose boxes alone are coloured; all are unless one is named.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, Patch

    where = places()
    right, low = (max(axis) for axis in zip(*where.values()))
    made = Figure(figsize=(right + WIDE + 0.6, low + 2.2), layout="constrained", dpi=100)
    axis = made.add_subplot()
    axis.set(xlim=(-0.2 - WIDE / 2, right + WIDE / 2 + 0.2), ylim=(low + 0.9, -0.9), aspect=1)
    axis.axis("off")
    for name, (x, y) in where.items():
        system = SYSTEMS[name]
        color = TASKS[system.task][1] if lit in ("", system.task) else "white"
        for parent in system.parents:
            a, b = where[parent]
            ends: dict[str, Any] = {"xy": (x - WIDE / 2, y), "xytext": (a + WIDE / 2, b)}
            axis.annotate("", **ends, zorder=1, arrowprops={"arrowstyle": "->", "color": "#707070"})
        box = FancyBboxPatch(
            (x - WIDE / 2, y - HIGH / 2), WIDE, HIGH, boxstyle="round,pad=0,rounding_size=0.1",
            facecolor=color, edgecolor="black", url=source(system), zorder=2,
        )  # fmt: skip
        axis.add_patch(box)
        title = "\n".join(wrap(system.title, LETTERS))
        middle: dict[str, Any] = {"ha": "center", "va": "center"}
        axis.text(x, y - 0.15, title, fontsize=13, weight="bold", linespacing=1.0, **middle)
        axis.text(x, y + 0.32, system.source, fontsize=12, **middle)
    kinds = [Patch(facecolor=color, edgecolor="black", label=what)
             for what, color, _ in TASKS.values()]  # fmt: skip
    made.legend(handles=kinds, loc="outside lower center", ncols=len(kinds), frameon=False,
                fontsize=13)  # fmt: skip
    return made


def source(system: System) -> str:
    """Where its code is, as docs/ links it; what came before and has none is in its notebook."""
    path = system.path.replace(".", "/") + ".py"
    there = (Path(__file__).parent / Path(path).name).is_file()
    return f"../{path}" if there else notebook(system)


def notebook(system: System) -> str:
    """The notebook that shows it, as docs/ links it."""
    return f"../notebooks/{TASKS[system.task][2]}.ipynb"


def page() -> str:
    """docs/family.md: the tree, the budgets, and a line a system."""
    from gill_lite.family.system import BUDGETS  # brings torch

    budgets = "; ".join(f"*{TASKS[task][0]}*: {budget.steps:,} steps of {budget.batch} pairs"
                        for task, budget in BUDGETS.items())  # fmt: skip
    heads = ("system", "after", "frozen", "learns", "by", "takes", "gives", "lectures", "shown in")
    rows = [heads, ("---",) * len(heads)]
    for s in SYSTEMS.values():
        shown = f"[{TASKS[s.task][2][:2]}]({notebook(s)})"
        rows.append((f"[{s.title}]({source(s)})", s.source, s.frozen, s.learns, s.loss, s.takes,
                     s.gives, s.lecture, shown))  # fmt: skip
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        "# The family\n\nThe systems GILL comes from and leads to, each small, in one world. An "
        "arrow leads to who takes up the idea; a box, to its source.\n\n"
        "![The family tree](family.svg)\n\nAll systems of a task that `gill-lite family` trains "
        f"have one budget, over all their stages. {budgets}. Who was trained elsewhere (CLIP, "
        f"FROMAGe, GILL, GLIDE, latent diffusion) had their own.\n\n{table}\n"
    )


def write(folder: Path) -> None:
    """family.svg and family.md in `folder`, the same bytes every time."""
    import matplotlib

    settings = {"svg.hashsalt": "family", "svg.fonttype": "none"}
    with matplotlib.rc_context(settings):
        figure().savefig(folder / "family.svg", metadata={"Date": None})
    svg = (folder / "family.svg").read_text(encoding="utf-8")
    lines = (line.rstrip() for line in svg.splitlines())
    write_text(folder / "family.svg", "\n".join(lines) + "\n")
    write_text(folder / "family.md", page())


if __name__ == "__main__":
    from gill_lite.provenance import repository_root

    write(repository_root() / "docs")
