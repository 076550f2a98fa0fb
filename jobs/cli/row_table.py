"""Rows of a run as a table of a terminal: cells of one line, lists as lists, 80 columns."""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from actors.protocol.plain_text import bare, quoted

CELL_CHARS = 200
MAX_ITEMS = 8  # of a list in a cell
MAX_HEADER_CHARS = 10  # longer names of columns are broken at their underscores
Row = Mapping[str, Any]


def row_table(
    rows: Sequence[Row], columns: Sequence[str], title: str, *, hides_ok: bool = True
) -> Table:
    """Returns a table of rows; columns without any value are left out.

    Args:
        rows: with a value for each column.
        columns: names, in order.
        title: above the table.
        hides_ok: `status` is left out too where every row is ok.
    """
    table = Table(title=title, title_justify="left")
    filled: list[str] = []
    for name in columns:
        values = [row[name] for row in rows]
        is_hidden = hides_ok and name == "status" and set(values) == {"ok"}
        if not is_hidden and any(value is not None for value in values):
            filled.append(name)

    for name in filled:
        table.add_column(_header(name), overflow="fold", no_wrap=_is_short(name, rows))
    for row in rows:
        table.add_row(*(Text(cell(row[name])) for name in filled))
    return table


def cell(value: Any) -> str:
    """Returns a value as a cell shows it: one line, bounded; lists as lists.

    A text is in quotes where its spaces would not show.
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if is_list(value):
        texts = [cell(item) for item in value[:MAX_ITEMS]]
        if len(value) > MAX_ITEMS:
            texts.append(f"… {len(value):,} in all")
        return f"[{', '.join(texts)}]"
    if isinstance(value, str) and value != value.strip():
        return quoted(value[:CELL_CHARS])
    return bare(value, CELL_CHARS)


def is_list(value: Any) -> bool:
    """Returns whether a value of a column is a list, in any of its forms."""
    return isinstance(value, list | tuple | array)


def _is_short(name: str, rows: Sequence[Row]) -> bool:
    """Returns whether a column has numbers only; its cells are never broken."""
    return all(row[name] is None or isinstance(row[name], int | float) for row in rows)


def _header(name: str) -> str:
    if len(name) <= MAX_HEADER_CHARS:
        return name
    return name.replace("_", "_\n")
