import pyarrow as pa

from pipeline.input.formats.folder_columns import FolderColumnsCursor
from pipeline.input.formats.format import Rows


class _Cursor:
    def take(self, first_row: int, rows: int) -> Rows:
        names = [f"p{row}" for row in range(first_row, first_row + rows)]
        return Rows({"prompt": names}, pa.table({"x": names}), {1: "fault"})


def test_values_of_folders_stand_in_every_row() -> None:
    schema = pa.schema([("year", pa.int64()), ("x", pa.string()), ("subject", pa.string())])
    values = {"year": 2024, "subject": None, "max_tokens": 8}
    cursor = FolderColumnsCursor(_Cursor(), ("max_tokens", "prompt"), schema, values)
    read = cursor.take(5, 2)
    assert read.values == {"max_tokens": [8, 8], "prompt": ["p5", "p6"]}
    assert read.passthrough.schema == schema
    assert read.passthrough.to_pydict() == {
        "year": [2024, 2024],
        "x": ["p5", "p6"],
        "subject": [None, None],
    }
    assert read.faults == {1: "fault"}
