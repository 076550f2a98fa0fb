"""How row groups are read: batches of bounded size, shared texts as dictionaries."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input import formats
from pipeline.input.formats.format import BATCH_ROWS
from pipeline.input.formats.row_groups import OpenFile, plan_row_group, read_batches
from pipeline.input.limits import MAX_VALUE_BYTES

LONG = "x" * 10**6
ROWS = 5000


def shared(count: int, *texts: str) -> Any:
    """Returns the texts, the last of them many times, in a dictionary."""
    last = len(texts) - 1
    indices = [*range(last), *[last] * (count - last)]
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(texts))


def write(path: Path, **columns: Any) -> OpenFile:
    pq.write_table(
        pa.table(columns),
        path,
        compression="zstd",
        dictionary_pagesize_limit=2**30,
        write_statistics=False,
        store_schema=False,
    )
    return lambda dictionaries: pq.ParquetFile(path, read_dictionary=list(dictionaries))


def lists_of(values: Any, *ends: int) -> Any:
    return pa.ListArray.from_arrays(pa.array([0, *ends], pa.int32()), values)


@pytest.mark.parametrize(
    ("column", "leaf"),
    [
        (shared(ROWS, LONG), "x"),
        (shared(ROWS, "a", LONG), "x"),
        (lists_of(shared(ROWS, LONG), 1, ROWS), "x.list.element"),
        (pa.StructArray.from_arrays([shared(ROWS, LONG)], ["a"]), "x.a"),
    ],
)
def test_texts_that_rows_share_are_read_as_dictionaries(
    tmp_path: Path, column: Any, leaf: str
) -> None:
    open_file = write(tmp_path / "a.parquet", x=column)
    group = plan_row_group(open_file([]), 0, ["x"], open_file)
    assert group.dictionaries == (leaf,)
    assert group.fault is None
    batches = list(read_batches(group, ["x"], open_file))
    assert sum(batch.num_rows for batch in batches) == len(column)
    assert max(batch.nbytes for batch in batches) < 3 * len(LONG)


def test_usual_texts_are_not_read_as_dictionaries(tmp_path: Path) -> None:
    texts = [f"text {row}" * 40 for row in range(ROWS)]
    open_file = write(tmp_path / "a.parquet", **{"x": texts, "x.y": texts, "z": texts})
    group = plan_row_group(open_file([]), 0, ["x", "x.y"], open_file)
    assert (group.dictionaries, group.batch_rows, group.fault) == ((), BATCH_ROWS, None)


def test_batches_of_wide_rows_are_small(tmp_path: Path) -> None:
    values = pa.array(np.arange(2**20, dtype=np.float64))
    open_file = write(tmp_path / "a.parquet", x=lists_of(values, *range(2**16, 2**20 + 1, 2**16)))
    group = plan_row_group(open_file([]), 0, ["x"], open_file)
    assert group.batch_rows == 128  # of 512 KiB each


def test_rows_of_a_group_beyond_the_limit_fail_without_being_decoded(tmp_path: Path) -> None:
    count = MAX_VALUE_BYTES // 8 + 1
    path = tmp_path / "a.parquet"
    write(path, id=["a"], x=lists_of(pa.array(np.zeros(count)), count))
    schema = pa.schema([("id", pa.string()), ("x", pa.list_(pa.float64()))])
    with formats.open_cursor(formats.SourceFile(str(path)), ("id",), schema) as cursor:
        rows = cursor.take(0, 1)
    assert "more than the 67,108,864 that one may have" in rows.faults[0]
    assert rows.passthrough["x"].to_pylist() == [None]
