"""A rehearsal of a run's output: small tables are written, read, repeated, merged, written again.

What the output cannot hold shows before the first request, not after the last one.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.protocol.errors import RequestError
from actors.protocol.messages import Completion, RowRef
from pipeline.errors import DatasetError
from pipeline.output.example_rows import example_table
from pipeline.output.merge import merge_rows
from pipeline.output.publication import Encoding, to_parquet
from pipeline.output.schema import OutputSchema
from pipeline.records import OutputRow

# What pyarrow raises for a type that a kernel, the writer or the reader does not support.
TYPE_ERRORS = (pa.ArrowException, OSError, ValueError, TypeError)


def check_output(schema: OutputSchema) -> None:
    """Checks that the parts of a run can be written, read back and merged.

    Raises:
        DatasetError: they cannot.
    """
    schema = replace(schema, passthrough=_one_of_each_type(schema.passthrough))
    failed = Completion.failed(RowRef(0, 0), RequestError.code, "rehearsal")
    rows = [OutputRow(failed, None)] * 2
    try:
        for count in (0, 2):
            passthrough = example_table(schema.passthrough, count)
            stored = _round_trip(schema.table(rows[:count], passthrough), schema.encodings)
            if stored != schema.arrow:
                raise TypeError(f"expected the columns {schema.arrow}, got {stored}")
    except TYPE_ERRORS as error:
        raise DatasetError(
            f"the output cannot be written and read back: {error}; drop or convert columns of the "
            "input"
        ) from error


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """Returns the schema that a table has when it was written and read back.

    Raises:
        ArrowException, OSError, ValueError, TypeError: a type is not supported on the way.
    """
    sample_index = pa.field("sample_index", pa.int32())
    stored = schema
    for count in (0, 2):
        table = example_table(schema, count)
        indices = pa.array([0] * count, pa.int32())
        stored = _round_trip(table.append_column(sample_index, indices))
    return stored.remove(len(schema))


def _one_of_each_type(schema: pa.Schema) -> pa.Schema:
    """Returns the first column of each type: 20,000 columns of integers are written like one."""
    fields: dict[str, pa.Field[Any]] = {}
    for field in schema:
        fields.setdefault(f"{field.type} {field.nullable} {field.metadata}", field)
    return pa.schema(list(fields.values()))


def _round_trip(
    table: pa.Table, encodings: Mapping[str, Encoding] = MappingProxyType({})
) -> pa.Schema:
    """Sends a table with a column `sample_index` the way of a part; returns its schema then."""
    part = pq.read_table(pa.BufferReader(to_parquet(table, encodings=encodings)))
    samples = part.take(np.arange(part.num_rows).repeat(2))

    rows = np.arange(part.num_rows)
    merged = merge_rows(part, part, rows, rows)
    merged = merge_rows(merged, part.slice(0, 0), rows, [])

    again = pq.read_table(pa.BufferReader(to_parquet(pa.concat_tables([merged, samples]))))
    if again.schema != part.schema:
        raise TypeError(f"{part.schema} becomes {again.schema}")
    return part.schema
