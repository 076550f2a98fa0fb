"""batches.py: row ranges that begin and end anywhere within record batches."""

import pyarrow as pa
import pytest

from pipeline.errors import DatasetError
from pipeline.input.formats.batches import BatchCursor

PASSTHROUGH = pa.schema([("topic", pa.string())])


def cursor(sizes: tuple[int, ...], passthrough: pa.Schema = PASSTHROUGH) -> BatchCursor:
    """Returns a cursor over batches of these sizes; row i has the prompt "i"."""
    batches: list[pa.RecordBatch] = []
    first = 0
    for size in sizes:
        numbers = range(first, first + size)
        columns = {
            "prompt": pa.array([str(row) for row in numbers], pa.string()),
            "topic": pa.array([f"t{row}" for row in numbers], pa.string()),
        }
        batches.append(pa.RecordBatch.from_pydict(columns))
        first += size
    return BatchCursor("in.arrow", iter(batches), ["prompt"], passthrough)


@pytest.mark.parametrize("sizes", [(10,), (3, 3, 4), (1,) * 10, (4, 0, 6)])
@pytest.mark.parametrize(
    "ranges",
    [[(0, 10)], [(0, 3), (3, 3), (6, 4)], [(2, 1), (5, 4)], [(9, 1)]],
)
def test_ranges_have_their_rows_for_any_batches(
    sizes: tuple[int, ...], ranges: list[tuple[int, int]]
) -> None:
    reader = cursor(sizes)
    for first, count in ranges:
        rows = reader.take(first, count)
        expected = range(first, first + count)
        assert rows.values["prompt"] == [str(row) for row in expected]
        assert rows.passthrough.to_pydict() == {"topic": [f"t{row}" for row in expected]}
        assert rows.passthrough.schema == PASSTHROUGH
        assert rows.faults == {}


def test_range_beyond_the_last_row_is_an_error() -> None:
    reader = cursor((3, 2))
    with pytest.raises(
        DatasetError, match=r"in\.arrow has 5 rows, and had 6 or more when it was listed"
    ):
        reader.take(4, 2)


def test_passthrough_columns_take_the_type_of_the_schema() -> None:
    batch = pa.RecordBatch.from_pydict(
        {"prompt": ["a", "b"], "count": pa.array([1, 2], pa.int32())}
    )
    schema = pa.schema([("count", pa.int64())])
    rows = BatchCursor("in.arrow", iter([batch]), ["prompt"], schema).take(0, 2)
    assert rows.passthrough.schema == schema
    assert rows.passthrough["count"].to_pylist() == [1, 2]


def test_input_that_is_no_utf8_is_a_fault_of_its_row() -> None:
    prompts = pa.array([b"a", b"\xff", b"c"])
    batch = pa.RecordBatch.from_pydict({"prompt": prompts})
    rows = BatchCursor("in.arrow", iter([batch]), ["prompt"], pa.schema([])).take(0, 3)
    assert rows.faults == {1: "column 'prompt' is not valid UTF-8"}
