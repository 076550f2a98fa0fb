from dataclasses import dataclass

import pyarrow as pa

from pipeline.evals.tables import missing_columns, to_table

FIELDS: tuple[tuple[str, pa.DataType], ...] = (
    ("count", pa.int32()),
    ("choices", pa.list_(pa.string())),
)
SCHEMA = pa.schema(FIELDS, metadata={b"tasks": b"mmlu"})


@dataclass(frozen=True, slots=True)
class Row:
    choices: tuple[str, ...] | None
    count: int
    ignored: float = 0.5


def test_table_has_columns_and_metadata_of_its_schema() -> None:
    table = to_table([Row(("a", "b"), 1), Row(None, 2)], SCHEMA)
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert table.to_pydict() == {"count": [1, 2], "choices": [["a", "b"], None]}


def test_table_of_no_rows_has_the_types_of_its_schema() -> None:
    table = to_table([], SCHEMA)
    assert table.num_rows == 0
    assert table.schema.equals(SCHEMA)


def test_missing_columns_keep_the_order_of_the_names() -> None:
    assert missing_columns(SCHEMA, ["z", "count", "a"]) == ["z", "a"]
    assert missing_columns(SCHEMA, ["choices", "count"]) == []
