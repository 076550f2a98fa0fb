from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.output.publication import publish_once, to_parquet


def test_parquet_bytes_do_not_depend_on_chunks() -> None:
    contiguous = pa.table({"x": [1, 2, 3], "name": ["a", "b", "a"]})
    chunked = pa.concat_tables([contiguous.slice(0, 1), contiguous.slice(1)])
    assert chunked["x"].num_chunks == 2
    assert to_parquet(chunked) == to_parquet(contiguous)


def test_parquet_unifies_dictionaries_of_chunks() -> None:
    chunks = [pa.array(["b", "a"]).dictionary_encode(), pa.array(["a", "c"]).dictionary_encode()]
    data = to_parquet(pa.table({"name": pa.chunked_array(chunks)}))
    assert pq.read_table(BytesIO(data))["name"].to_pylist() == ["b", "a", "a", "c"]


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
