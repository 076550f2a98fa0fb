from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.output.publication import Encoding, publish_once, to_parquet, writer_options

STRUCT = pa.struct({"x": pa.list_(pa.int64()), "m": pa.map_(pa.string(), pa.int64())})
NESTED: Any = [{"x": [1], "m": [("k", 2)]}, None]
TABLE = pa.table(
    {
        "id": ["a", "b"],
        "nested": pa.array(NESTED, STRUCT),
        "vector": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
    }
)


def test_parquet_bytes_do_not_depend_on_chunks() -> None:
    contiguous = pa.table({"x": [1, 2, 3], "name": ["a", "b", "a"]})
    chunked = pa.concat_tables([contiguous.slice(0, 1), contiguous.slice(1)])
    assert chunked["x"].num_chunks == 2
    assert to_parquet(chunked) == to_parquet(contiguous)


def test_parquet_unifies_dictionaries_of_chunks() -> None:
    chunks = [pa.array(["b", "a"]).dictionary_encode(), pa.array(["a", "c"]).dictionary_encode()]
    data = to_parquet(pa.table({"name": pa.chunked_array(chunks)}))
    assert pq.read_table(BytesIO(data))["name"].to_pylist() == ["b", "a", "a", "c"]


def encodings(data: bytes) -> dict[str, set[str]]:
    """Returns the encodings of values in a file, by path."""
    row_group = pq.ParquetFile(BytesIO(data)).metadata.row_group(0)
    columns = [row_group.column(index) for index in range(row_group.num_columns)]
    return {column.path_in_schema: set(column.encodings) for column in columns}


def test_files_without_encodings_keep_their_bytes() -> None:
    assert writer_options(TABLE.schema, {}) == {}
    assert to_parquet(TABLE) == to_parquet(TABLE, encodings={"id": Encoding.DEFAULT})


def test_encoded_column_has_no_dictionary_and_the_others_keep_theirs() -> None:
    data = to_parquet(TABLE, encodings={"vector": Encoding.BYTE_STREAM_SPLIT})
    found = encodings(data)
    vector = found.pop("vector.list.element")
    assert "BYTE_STREAM_SPLIT" in vector
    assert "RLE_DICTIONARY" not in vector
    assert found.keys() == {
        "id",
        "nested.x.list.element",
        "nested.m.key_value.key",
        "nested.m.key_value.value",
    }
    assert all("RLE_DICTIONARY" in names for names in found.values())
    assert pq.read_table(BytesIO(data)) == TABLE


def test_publish_once_keeps_an_equal_object_untouched(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    assert publish_once(str(path), b"data", "rows")
    written_ns = path.stat().st_mtime_ns
    assert not publish_once(str(path), b"data", "rows")
    assert path.stat().st_mtime_ns == written_ns


def test_publish_once_rejects_an_object_with_other_bytes(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    path.write_bytes(b"earlier")
    with pytest.raises(ConfigError, match=r"requests\.parquet is there and holds other requests "):
        publish_once(str(path), b"data", "requests")
    assert path.read_bytes() == b"earlier"
