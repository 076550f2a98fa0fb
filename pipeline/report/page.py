"""Report pages from Jinja templates: HTML that needs neither network nor scripts.

Every expression of a template is stripped of credentials, shortened and escaped, unless it is
`Markup` already. A report extends `base.html.j2` and imports `parts.html.j2`; its own templates are
in the folder `templates` of its package.
"""

import functools
from dataclasses import dataclass
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from actors.protocol.plain_text import VALUE_CHARS, bare
from pipeline.report.figures import compact, duration, percent

LONGEST_TEXT_CHARS = VALUE_CHARS  # of any text from outside
UNBROKEN_CHARS = 24  # longest text of a table cell on one line
OWN_PACKAGE = "pipeline.report"


@dataclass(frozen=True, slots=True)
class Status:
    """The result of a run in words, and the class of the style sheet that colours it."""

    words: str
    color: str


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
    return bare(value)


def _cell_class(value: object) -> Markup:
    is_short = len(text(value)) <= UNBROKEN_CHARS
    return Markup(" class=short") if is_short else Markup()
