from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pytest

from pipeline.errors import DatasetError
from pipeline.input import formats
from pipeline.input.formats import SourceFile
from pipeline.input.listing import list_input
from pipeline.records import PromptRow
from tests.pipeline.input.input_files import read_all

TABLE = pa.table(
    {
        "id": list(range(10)),
        "unused": ["u"] * 10,
        "prompt": [f"p{number}" for number in range(10)],
        "kind": pa.array(["a", "b"] * 5).dictionary_encode(),
    }
)


def write_ipc(path: Path, table: pa.Table = TABLE, batch_rows: int = 4) -> str:
    """Writes a stream, as Hugging Face Datasets does, or a file where the suffix is .feather."""
    if path.suffix == ".feather":
        feather.write_feather(table, path, chunksize=batch_rows)
    else:
        with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table, batch_rows)
    return str(path)


@pytest.mark.parametrize("name", ["a.arrow", "a.feather"])
def test_rows_are_those_of_all_batches(tmp_path: Path, name: str) -> None:
    rows, passthrough, schema = read_all(write_ipc(tmp_path / name))
    assert [row.prompt for row in rows if isinstance(row, PromptRow)] == TABLE["prompt"].to_pylist()
    assert passthrough["id"].to_pylist() == list(range(10))
    assert passthrough["kind"].to_pylist() == ["a", "b"] * 5
    assert schema.passthrough.names == ["id", "unused", "kind"]


@pytest.mark.parametrize("name", ["a.arrow", "a.feather"])
def test_cursor_skips_rows_and_columns(tmp_path: Path, name: str) -> None:
    source = SourceFile(write_ipc(tmp_path / name))
    with formats.open_cursor(source, ("prompt",), pa.schema([("id", pa.int64())])) as cursor:
        assert cursor.take(3, 2).values == {"prompt": ["p3", "p4"]}
        assert cursor.take(9, 1).passthrough.to_pydict() == {"id": [9]}
        with pytest.raises(DatasetError, match="has 10 rows, and had 11 or more"):
            cursor.take(10, 1)


@pytest.mark.parametrize("name", ["a.arrow", "a.feather"])
def test_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    path = Path(write_ipc(tmp_path / name))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DatasetError, match=rf"{name} is not a readable Arrow IPC file"):
        list_input(str(path))


def test_files_of_different_columns_are_rejected(tmp_path: Path) -> None:
    write_ipc(tmp_path / "a.arrow")
    write_ipc(tmp_path / "b.feather", TABLE.drop_columns("unused"))
    with pytest.raises(DatasetError, match=r"column 'unused' of .* is missing"):
        read_all(str(tmp_path))
