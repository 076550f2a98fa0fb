"""pipeline/output/reuse/copies.py: tables and parts from rows of older runs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import ConfigError
from pipeline.output.columns import OutputColumn, value_column
from pipeline.output.publication import to_parquet
from pipeline.output.reuse.copies import copied_table, publish_part
from pipeline.output.reuse.footer import COPIED_ROWS
from pipeline.output.reuse.older_parts import read_parts
from pipeline.output.run_folder import RunFolder
from pipeline.output.schema import OutputSchema
from pipeline.records import OlderRows, Shard

COLUMNS: tuple[OutputColumn, ...] = tuple(
    value_column(name, kind, lambda completion: None)
    for name, kind in (("sample_index", pa.int32()), ("status", pa.string()))
)


def test_copied_table_has_input_columns_of_this_run() -> None:
    schema = OutputSchema(pa.schema({"id": pa.string(), "topic": pa.string()}), COLUMNS)
    results = pa.table(
        {"status": ["ok"] * 3, "more": [1, 2, 3], "sample_index": pa.array([0, 0, 1], pa.int32())}
    )
    inputs = pa.table({"id": ["a", "b"], "topic": ["x", "y"]})
    table = copied_table(schema, inputs, OlderRows(results, np.array([1, 2]), (), ()))
    assert table.schema.equals(schema.arrow)
    assert table["id"].to_pylist() == ["a", "b", "b"]
    assert table["topic"].to_pylist() == ["x", "y", "y"]


def test_published_part_has_the_fingerprint_of_this_run(tmp_path: Path) -> None:
    schema = OutputSchema(pa.schema({"id": pa.string()}), COLUMNS)
    table = pa.table({"id": ["a"], "sample_index": [0], "status": ["ok"]})
    table = table.cast(schema.with_fingerprint("old").arrow)
    older = RunFolder(str(tmp_path / "old"))
    older.client.put_if_absent(older.part_url(3), to_parquet(table))
    [part] = read_parts(older, "old")

    folder = RunFolder(str(tmp_path / "new"))
    shard = Shard(0, "f", 0, 1)
    assert publish_part(folder, schema, "new", shard, part)
    [copied] = read_parts(folder, "new")
    assert copied.footer[COPIED_ROWS] == "1"
    assert not publish_part(folder, schema, "new", shard, part)
    with pytest.raises(ConfigError, match="was written by a run with fingerprint new"):
        publish_part(folder, schema, "third", shard, part)
