"""The rehearsal of a run's output."""

from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import DatasetError
from pipeline.output.round_trip import check_output, stored_schema
from tests.pipeline.output.samples import schema_of


def table_of(data_type: Any) -> pa.Table:
    columns: Any = [pa.array(["a"]), pa.nulls(1, data_type)]
    return pa.table(columns, names=["id", "x"])


@pytest.mark.parametrize("data_type", [pa.int64(), pa.dictionary(pa.int8(), pa.string())])
def test_check_output_accepts_what_can_be_read_back(data_type: Any) -> None:
    check_output(schema_of(table_of(data_type)))


@pytest.mark.parametrize("data_type", [pa.string_view(), pa.timestamp("s"), pa.struct([])])
def test_check_output_rejects_what_cannot(data_type: Any) -> None:
    with pytest.raises(DatasetError, match="the output cannot be written and read back"):
        check_output(schema_of(table_of(data_type)))


def test_stored_schema_is_the_one_that_is_read() -> None:
    schema: Any = pa.schema([("a", pa.timestamp("s")), ("b", pa.string())])
    assert stored_schema(schema) == pa.schema([("a", pa.timestamp("ms")), ("b", pa.string())])


def test_check_output_writes_one_column_of_each_type() -> None:
    columns: dict[str, Any] = {"id": ["a"]}
    columns |= {f"c{number}": [number] for number in range(5000)}
    table = pa.table(columns)
    check_output(schema_of(table))
    with pytest.raises(DatasetError, match="the output cannot be written and read back"):
        check_output(schema_of(table.append_column("x", pa.nulls(1, pa.timestamp("s")))))
