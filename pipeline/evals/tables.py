"""Dataclass instances as rows of Arrow tables, and the columns that a file lacks."""

from collections.abc import Iterable, Sequence

import pyarrow as pa


def to_table(rows: Sequence[object], schema: pa.Schema) -> pa.Table:
    """Returns the attributes of `rows` that `schema` names, as a table of `schema`."""
    columns = []
    for column in schema:
        values = [getattr(row, column.name) for row in rows]
        columns.append(pa.array(values, column.type))
    return pa.table(columns, schema=schema)


def missing_columns(schema: pa.Schema, names: Iterable[str]) -> list[str]:
    """Returns those of `names` that are no columns of `schema`, in their order."""
    return [name for name in names if name not in schema.names]
