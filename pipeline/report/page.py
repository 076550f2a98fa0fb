"""Report pages from Jinja templates: HTML that needs neither network nor scripts.

Every expression of a template is stripped of credentials, shortened and escaped, unless it is
`Markup` already. A report extends `base.html.j2` and imports `parts.html.j2`; its own templates are
in the folder `templates` of its package.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline.report.drawing import Plot
from pipeline.report.figures import compact, duration, percent
from pipeline.storage.redaction import redact_credentials

LONGEST_TEXT_CHARS = 500  # of any text from outside
UNBROKEN_CHARS = 24  # a table cell of up to so many stays on one line
OWN_PACKAGE = "pipeline.report"


def render_template(name: str, *, package: str = OWN_PACKAGE, **context: Any) -> str:
    """Returns a page.

    Args:
        name: of a template in the folder `templates` of `package`, or of this package.
        package: that has the report's templates.
        context: values that the template names; a name that is missing raises.
    """
    return _environment(package).get_template(name).render(context)


def text(value: object) -> Markup:
    """Returns a value from outside as HTML: without credentials, shortened, escaped."""
    return escape(_displayed(value))


@functools.cache
def _environment(package: str) -> Environment:
    packages = dict.fromkeys((package, OWN_PACKAGE))
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_displayed,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cell_class": _cell_class,
        "compact": compact,
        "count": "{:,}".format,
        "duration": duration,
        "percent": percent,
    }
    return environment


def _displayed(value: object) -> object:
    """Returns `Markup` as it is, and everything else as a short text without credentials."""
    if isinstance(value, Markup):
        return value
    displayed = redact_credentials(str(value))
    if len(displayed) > LONGEST_TEXT_CHARS:
        displayed = displayed[: LONGEST_TEXT_CHARS - 1] + "…"
    return displayed


def _cell_class(value: object) -> Markup:
    is_short = len(text(value)) <= UNBROKEN_CHARS
    return Markup(" class=short") if is_short else Markup()


# -- parts as functions, for pages that are built of strings of HTML -------------------------------


def page(title: str, body: str) -> str:
    """Returns the page. `title` and `body` are HTML."""
    return render_template("base.html.j2", title=Markup(title), body=Markup(body))


def figure(plot: Plot) -> Markup:
    """Returns a plot with its explanation, its text alternative and the same numbers as a table."""
    return _part("figure", plot)


def cards(entries: Iterable[tuple[str, str, str]]) -> Markup:
    """Returns figures in boxes: name, value and note of each, all HTML."""
    boxes = [tuple(map(Markup, entry)) for entry in entries]
    return _part("cards", boxes)


def remarks(entries: Iterable[str]) -> Markup:
    """Returns what stands out, as a list; each entry is HTML."""
    return _part("remarks", [Markup(entry) for entry in entries])


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """Returns a table of texts."""
    return _part("table", header, list(rows))


def _part(name: str, *arguments: Any) -> Markup:
    parts: Any = _environment(OWN_PACKAGE).get_template("parts.html.j2").module
    part: Markup = getattr(parts, name)(*arguments)
    return part
