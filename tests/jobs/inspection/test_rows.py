"""rows.py: rows of all parts in order, and the conditions on them."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.inspection.rows import (
    Condition,
    check_columns,
    first_rows,
    has_failed,
    has_id,
    read_rows,
    run_schema,
    where,
)
from pipeline.errors import ConfigError, DatasetError
from pipeline.output.run_folder import RunFolder

COLUMNS = ["id", "status", "length"]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run of two parts of three rows; part 1 was committed first."""
    (tmp_path / "data").mkdir()
    for part in (1, 0):
        rows = [
            {"id": 3 * part + row, "status": "ok" if row else "error", "length": row or None}
            for row in range(3)
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / f"part-{part:05d}.parquet")
    (tmp_path / "data" / ".part-00002.parquet.tmp").write_bytes(b"of a driver that runs")
    return RunFolder(str(tmp_path))


def ids(folder: RunFolder, conditions: Sequence[Condition], limit: int = 10) -> list[int]:
    return [row["id"] for row in first_rows(folder, COLUMNS, conditions, limit)]


def test_rows_come_in_the_order_of_the_input(folder: RunFolder) -> None:
    assert ids(folder, []) == [0, 1, 2, 3, 4, 5]
    assert ids(folder, [], limit=4) == [0, 1, 2, 3]


def test_rows_have_the_columns_that_are_asked_for(folder: RunFolder) -> None:
    assert run_schema(folder).names == COLUMNS
    [row] = islice(read_rows(folder, ["length"], lambda row: row["length"] == 2), 1)
    assert row == {"length": 2}


def test_conditions_hold_together(folder: RunFolder) -> None:
    longer, names = where("length > 1", COLUMNS)
    assert names == {"length"}
    assert ids(folder, [longer]) == [2, 5]
    assert ids(folder, [has_failed]) == [0, 3]
    assert ids(folder, [has_id("4")]) == [4]
    assert ids(folder, [longer, has_failed]) == []


def test_unknown_columns_are_errors(folder: RunFolder) -> None:
    with pytest.raises(ConfigError, match="did you mean 'length'"):
        where("lenght > 1", COLUMNS)
    with pytest.raises(ConfigError, match="--columns: text is not a column; there are id, status"):
        check_columns(["id", "text"], COLUMNS)


def test_run_without_a_part_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no part is committed yet"):
        run_schema(RunFolder(str(tmp_path)))
