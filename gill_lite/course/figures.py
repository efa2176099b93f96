"""Figures of the notebooks: grids of pictures, strips of tokens, heat over words.

Colours are told apart by colour-blind readers and in a grey print; text is large enough for a
projector. A figure returns nothing: the notebook prints a rounded number beside it.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from gill_lite.datasets.images import open_image
from gill_lite.errors import GillError

# Okabe and Ito's palette: told apart by colour-blind readers, black and vermillion first.
COLORS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
# Fills of strips, in the order of their legend: dark, white, hatched, light.
FILLS: tuple[dict, ...] = (
    {"facecolor": "#0072B2", "edgecolor": "black"},
    {"facecolor": "white", "edgecolor": "#808080"},
    {"facecolor": "#F0C27B", "edgecolor": "black", "hatch": "//"},
    {"facecolor": "#D9D9D9", "edgecolor": "black"},
)


def style() -> None:
    """Sizes and colours of every figure of the course."""
    import matplotlib
    from matplotlib.rcsetup import cycler

    matplotlib.rcParams.update(
        {
            "figure.dpi": 150,
            "savefig.dpi": 150,
            "font.size": 12,
            "axes.titlesize": 12,
            "axes.labelsize": 13,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=COLORS),
            "hatch.linewidth": 0.6,
        }
    )


def show(images, titles=None, rows=None, cols=None, path=None, inches: float = 1.9, notes=None):
    """Draw a labelled grid of pictures, enlarged.

    images: a list (one row) or a list of rows of PIL images, arrays (H, W, 3) or image files;
    None leaves a gap. titles, notes: one a picture, above and below it, in the same shape.
    rows, cols: labels of the rows and columns. path: also save as PNG. Raises GillError when
    labels and pictures differ in number.
    """
    import matplotlib.pyplot as plt

    grid, wrap = _as_grid(images), max(10, int(inches * 10))
    above, below = _texts("titles", titles, grid, wrap), _texts("notes", notes, grid, wrap)
    height, width = len(grid), max(len(row) for row in grid)
    _same_number("row labels", len(rows or grid), height)
    _same_number("column labels", len(cols or [0] * width), width)
    if cols:
        above[0] = [[*_lines(col, wrap), *lines] for col, lines in zip(cols, above[0])]
    lines = sum(max(map(len, row)) for row in above + below)
    beside = min(wrap, max(len(str(label)) for label in rows or [""]))
    size = (inches * width + 0.1 * beside, inches * height + 0.24 * lines)  # texts shrink nothing
    figure, axes = plt.subplots(height, width, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for y, row in enumerate(grid):
        for x, image in enumerate(row):
            if image is not None:
                image = open_image(image) if isinstance(image, str | Path) else image
                axes[y, x].imshow(image, interpolation="nearest")  # a file a third as large
            axes[y, x].set_title("\n".join(above[y][x]))
            note = "\n".join(below[y][x])
            axes[y, x].text(0.5, -0.04, note, transform=axes[y, x].transAxes, ha="center", va="top")
    for y, label in enumerate(rows or []):
        text = textwrap.fill(str(label), wrap)
        axes[y, 0].text(-0.06, 0.5, text, transform=axes[y, 0].transAxes, ha="right", va="center")
    if path is not None:
        figure.savefig(path)
    plt.show()


def strips(rows: Mapping[str, Sequence[tuple[str, int]]], kinds: Sequence[str]) -> None:
    """Draw sequences of tokens as rows of boxes, filled by kind.

    rows: label of a row -> its boxes (text, number of its kind); a row may be shorter than the
    others. kinds: what the numbers 0, 1, ... mean, up to four; the legend says it.
    Raises GillError for a kind without a name.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    _known_kinds(rows, len(kinds))
    width = max(len(boxes) for boxes in rows.values())
    figure, axis = plt.subplots(
        figsize=(max(8, 0.72 * width + 1), 0.85 * len(rows) + 0.7), layout="constrained"
    )
    for y, (label, boxes) in enumerate(rows.items()):
        axis.text(0, y - 0.47, label, va="bottom", fontsize=13, fontweight="bold")
        for x, (text, kind) in enumerate(boxes):
            axis.add_patch(plt.Rectangle((x, y - 0.4), 0.94, 0.46, **FILLS[kind]))
            ink = "white" if kind == 0 else "black"
            size = 13 if len(text) < 6 else 78 / len(text)
            axis.text(x + 0.47, y - 0.17, text, ha="center", va="center", color=ink, fontsize=size)
    patches = [Patch(label=kind, **fill) for kind, fill in zip(kinds, FILLS)]
    figure.legend(handles=patches, loc="outside lower left", ncols=len(kinds), frameon=False)
    axis.set(xlim=(0, width), ylim=(len(rows) - 0.75, -0.85))
    axis.axis("off")
    plt.show()


def heat(lines: Sequence[Sequence[str]], panels: Mapping[str, Sequence[float]]) -> None:
    """Draw words with a background as dark as their value, one panel a measure.

    lines: words, one list a line of text. panels: title -> a value a word, all lines in a row,
    zero or more; the darkest background is the panel's largest value, white is zero.
    Raises GillError when words and values differ in number.
    """
    import matplotlib.pyplot as plt

    words = [word for line in lines for word in line]
    for title, values in panels.items():
        if len(values) != len(words):
            raise GillError(f"'{title}' has {len(values)} values for {len(words)} words.")
    across = max(sum(len(word) + 1.2 for word in line) for line in lines)
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(max(6, 0.16 * across), len(panels) * (0.42 * len(lines) + 0.45)),
        squeeze=False,
        layout="constrained",
    )
    shades = plt.get_cmap("Blues")
    for axis, (title, values) in zip(axes.flat, panels.items()):
        values = [float(value) for value in values]
        top, rest = max(values), iter(values)
        for y, line in enumerate(lines):
            x = 0.0
            for word in line:
                share, wide = next(rest) / (top or 1), len(word) + 1.0
                axis.add_patch(plt.Rectangle((x, y), wide, 0.9, color=shades(0.85 * share)))
                axis.text(
                    x + wide / 2,
                    y + 0.47,
                    word,
                    ha="center",
                    va="center",
                    color="white" if share > 0.6 else "black",
                    fontsize=14,
                    family="monospace",
                )
                x += wide + 0.2
        axis.set_title(f"{title} (darkest: {top:.2g})", loc="left", fontsize=13)
        axis.set(xlim=(0, across), ylim=(len(lines), 0))
        axis.axis("off")
    plt.show()


def _known_kinds(rows: Mapping, number: int) -> None:
    if number > len(FILLS):
        raise GillError(f"strips() can draw {len(FILLS)} kinds of boxes, not {number}.")
    for label, boxes in rows.items():
        if unknown := [kind for _, kind in boxes if not 0 <= kind < number]:
            raise GillError(f"row '{label}' has a box of kind {unknown[0]}, which has no name.")


def _texts(what: str, given, grid: list[list], wrap: int) -> list[list[list[str]]]:
    """A text a picture as its lines, in the grid's shape; empty ones where none are given."""
    texts = [[""] * len(row) for row in grid] if given is None else _as_grid(given)
    _same_number(what, [len(row) for row in texts], [len(row) for row in grid])
    return [[_lines(text, wrap) for text in row] for row in texts]


def _lines(text, wrap: int) -> list[str]:
    """The lines of a text, long ones broken."""
    whole = str(text).replace(" .", "\N{NO-BREAK SPACE}.")  # a full stop never begins a line
    return [part for line in whole.splitlines() for part in textwrap.wrap(line, wrap)]


def _as_grid(items) -> list[list]:
    items = list(items)
    if not items:
        raise GillError("show() was given no picture.")
    return [list(row) for row in items] if isinstance(items[0], list | tuple) else [items]


def _same_number(what: str, got, wanted) -> None:
    if got != wanted:
        raise GillError(f"show() was given {got} {what} for {wanted} of pictures.")
