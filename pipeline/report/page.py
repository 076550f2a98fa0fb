"""Parts of a report page → one HTML text that needs nothing else: neither network nor script.

Knows no figures of any run.

Every text that comes from outside is escaped, shortened and rid of credentials.
"""

import html
from collections.abc import Iterable, Sequence

from pipeline.report.drawing import Plot
from pipeline.report.style import STYLE
from pipeline.storage.redaction import redact_credentials

MOST_CHARS, UNBROKEN_CHARS = 500, 24  # of any text from outside; of a cell that stays on one line
# Nothing may be fetched and nothing may run, whatever the data holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, body: str) -> str:
    """Returns the page. `title` is escaped text, `body` is HTML."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def figure(plot: Plot) -> str:
    """Returns a plot with its explanation, its text alternative and the same numbers as a table."""
    label = (
        f'<svg role="img" aria-labelledby="{plot.name}-title" aria-describedby="{plot.name}-words"'
    )
    return (
        f'\n<figure><h3 id="{plot.name}-title">{text(plot.title)}</h3>\n'
        f'<figcaption id="{plot.name}-words">{text(plot.explanation)}</figcaption>\n{plot.svg.replace("<svg", label, 1)}'
        "<details><summary>The same as a "
        f"table</summary>{table(plot.header, plot.rows)}</details></figure>"
    )


def cards(entries: Iterable[tuple[str, str, str]]) -> str:
    """Returns figures in boxes: name, value and note of each, all HTML."""
    shown = "".join(
        f"<div><dt>{name}</dt><dd>{value}</dd><dd>{note}</dd></div>"
        for name, value, note in entries
    )
    return f'<dl class="cards">{shown}</dl>'


def remarks(entries: Iterable[str]) -> str:
    """Returns what stands out, as a list; each entry is HTML."""
    listed = "".join(f"<li>{remark}</li>" for remark in entries)
    return f"<h2>Worth a look</h2><ul>{listed or '<li>Nothing stands out.</li>'}</ul>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table of texts."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def text(value: object) -> str:
    """Returns a value from outside as HTML."""
    shown = redact_credentials(str(value))
    return html.escape(shown if len(shown) <= MOST_CHARS else shown[: MOST_CHARS - 1] + "…")


def _cell(value: object) -> str:
    shown = text(value)
    return f"<td{' class=short' if len(shown) <= UNBROKEN_CHARS else ''}>{shown}</td>"
