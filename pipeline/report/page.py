"""Report pages from Jinja templates: HTML that needs neither network nor scripts.

Every expression of a template is stripped of credentials, shortened and escaped, unless it is
`Markup` already. A report extends `base.html.j2` and imports `parts.html.j2`; its own templates are
in the folder `templates` of its package.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from actors.protocol.plain_text import VALUE_CHARS, bare, one_line, redact_credentials
from pipeline.report.figures import compact, duration, percent
from pipeline.requests.token_text import PROBABILITY_LIMITS, probability_rank

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


def text_block(value: str) -> Markup:
    """Returns a text of several lines as HTML: its lines are kept, all else is as in `text`."""
    lines = [one_line(line) for line in redact_credentials(value).split("\n")]
    return escape("\n".join(lines))


def coloured_tokens(tokens: Iterable[tuple[str, float | None]]) -> Markup:
    """Returns tokens as HTML, unlikely ones on the colour of their probability.

    Args:
        tokens: text and log-prob of each; the texts hold no credentials.
    """
    parts = []
    for piece, logprob in tokens:
        lines = [one_line(line) for line in piece.split("\n")]
        block = escape("\n".join(lines))
        rank = probability_rank(logprob)
        if rank < len(PROBABILITY_LIMITS) and logprob is not None:
            probability = percent(math.exp(min(logprob, 0.0)))
            block = Markup('<span class=p{} title="{}">{}</span>').format(rank, probability, block)
        parts.append(block)
    return Markup("").join(parts)


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
    environment.globals["probability_limits"] = PROBABILITY_LIMITS
    environment.filters |= {
        "block": text_block,
        "coloured": coloured_tokens,
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
