"""A function that draws → an SVG in the colours of the page's style sheet.

What all plots of all reports have in common.

SVG is crisp at any size, prints, and needs no script. Colours are names of the page's style sheet,
so that they follow its light or dark scheme. Knows no page and no figures of any run.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.report.figures import compact

WIDTH = 9.2  # inches, of 72 SVG units each
# stand for names of the style sheet:
INK, LINE, IN, OUT, BAD, CALM = (f"#0{index}0{index}0{index}" for index in range(1, 7))
STYLE_NAMES = {INK: "ink", LINE: "line", IN: "in", OUT: "out", BAD: "bad", CALM: "calm"}
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be selected, searched and read aloud
    "text.parse_math": False,  # a $ in a name is a dollar sign
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture and what it says in words and in numbers."""

    name: str  # unique on the page
    title: str
    explanation: str
    svg: Markup
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def svg(name: str, draw: Callable[[Figure], None], height: float, width: float = WIDTH) -> Markup:
    """Returns what `draw` draws as an SVG element: no size of its own, colours by name, ids that no other plot has."""
    with rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        drawn = StringIO()
        figure.savefig(
            drawn, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    element = drawn.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", element, count=1, flags=re.DOTALL)
    for size in ("width", "height"):
        element = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", element)
    element = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", element)
    for color, style_name in STYLE_NAMES.items():
        element = element.replace(color, f"var(--{style_name})")
    label = f'role="img" aria-labelledby="{name}-title" aria-describedby="{name}-words"'
    element = element.replace("<svg", f"<svg {label}", 1)
    return Markup(element)  # matplotlib has escaped the texts in it


def count_axis(axes: Axes, *, whole: bool = False) -> None:
    """Lets the value axis begin at 0, with few ticks in short numbers."""
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.0 if whole else 1e-3))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=whole))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
