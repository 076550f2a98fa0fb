"""Renders plots of all reports as SVG elements in the colours of the page's style sheet.

SVG is crisp at any size, prints, and needs no script. Colours are names of the page's style sheet,
so that they follow its light or dark scheme. Does not depend on a page or on the data of a run.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.report.figures import compact

WIDTH = 9.2  # inches, of 72 SVG units each
NARROW_WIDTH = 4.6  # as wide as a phone: text keeps its size
# placeholders, which `svg` replaces by names of the style sheet
INK = "#010101"
LINE = "#020202"
IN = "#030303"
OUT = "#040404"
BAD = "#050505"
CALM = "#060606"
GOOD = "#070707"
STYLE_NAMES = {
    INK: "ink",
    LINE: "line",
    IN: "in",
    OUT: "out",
    BAD: "bad",
    CALM: "calm",
    GOOD: "good",
}
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
# without the date and the version, so that the same plot is the same file
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with its explanation and a table of its numbers."""

    name: str  # unique on the page
    title: str
    explanation: str
    svg: Markup
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def svg(
    name: str,
    draw: Callable[[Figure], None],
    height: float,
    width: float = WIDTH,
    narrow_height: float | None = None,
) -> Markup:
    """Returns a plot as SVG elements for a page with other plots: a wide one, and one for phones.

    They have no size of their own, their colours are names of the style sheet, and their ids are
    unique. The style sheet displays one of them. A plot of half the width of a page has one form.

    Args:
        name: of the plot, unique on the page.
        draw: draws on the figure; `is_narrow` is true for that of a phone.
        height: in inches.
        width: in inches.
        narrow_height: of the narrow plot, in inches; None: `height`.
    """
    element = _element(name, name, draw, height, width)
    if width <= NARROW_WIDTH:
        return Markup(element)  # matplotlib has escaped the texts in it
    narrow = _element(name, f"{name}-narrow", draw, narrow_height or height, NARROW_WIDTH)
    return Markup(f'<div class="wide">{element}</div><div class="narrow">{narrow}</div>')


def is_narrow(figure: Figure) -> bool:
    """Returns whether a figure is drawn for a phone."""
    return float(figure.get_figwidth()) <= NARROW_WIDTH


def _element(
    name: str, prefix: str, draw: Callable[[Figure], None], height: float, width: float
) -> str:
    """Returns an SVG element whose ids begin with `prefix`."""
    element = _matplotlib_svg(name, draw, height, width)
    element = element[element.index("<svg") :]
    element = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", element, count=1, flags=re.DOTALL)
    for size in ("width", "height"):
        element = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", element, count=1)

    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", element)
    element = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", element)
    for color, style_name in STYLE_NAMES.items():
        element = element.replace(color, f"var(--{style_name})")

    label = f'role="img" aria-labelledby="{name}-title" aria-describedby="{name}-words"'
    return element.replace("<svg", f"<svg {label}", 1)


def _matplotlib_svg(name: str, draw: Callable[[Figure], None], height: float, width: float) -> str:
    """Returns the SVG file that matplotlib writes; the same bytes for the same plot."""
    with rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        file = StringIO()
        # `savefig` draws twice where there is a layout; a drawing computes the layout itself.
        FigureCanvasSVG(figure).print_svg(file, metadata=NO_METADATA)  # type: ignore[no-untyped-call]
    return file.getvalue()


def count_axis(axes: Axes, *, integer: bool = False) -> None:
    """Lets the value axis begin at 0, with few ticks in short numbers."""
    smallest_top = 1e-3
    if integer:
        smallest_top = 1.0
    _, top = axes.get_ylim()
    axes.set_ylim(0, max(top, smallest_top))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=integer))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
