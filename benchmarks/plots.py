"""One figure of how time grows, from the points that bench_growth has taken."""

import io
from collections import defaultdict
from pathlib import Path

import numpy as np

from gill_lite.course.figures import COLORS, style
from gill_lite.files import write_bytes

MARKERS = ("o", "s", "^")


def exponent(x, y) -> float:
    """a of y = c * x**a, by least squares over the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def growth(series: list[dict], path: Path) -> Path:
    """Draw the series, those of one unit in a panel, both axes logarithmic; write a small PNG."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter
    from PIL import Image

    style()
    panels = defaultdict(list)
    for one in series:
        panels[one["unit"]].append(one)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 4), squeeze=False, layout="constrained"
    )
    for axis, (unit, group) in zip(axes.flat, panels.items(), strict=True):
        for one, color, marker in zip(group, COLORS, MARKERS):
            power = exponent(one["x"], one["y"])
            label = f"{one['what']}: exponent {power:.2f}"
            axis.loglog(one["x"], one["y"], marker=marker, color=color, label=label)
        axis.set(xlabel=unit, ylim=(None, 12 * max(max(one["y"]) for one in group)))
        axis.legend(frameon=False, loc="upper left", fontsize=11)
        for of_axis in (axis.xaxis, axis.yaxis):
            of_axis.set_minor_formatter(NullFormatter())
    axes[0, 0].set_ylabel("seconds")
    drawn, smaller = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=100)
    plt.close(figure)
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(16, dither=Image.Dither.NONE).save(smaller, "PNG", optimize=1)
    return write_bytes(path, smaller.getvalue())
