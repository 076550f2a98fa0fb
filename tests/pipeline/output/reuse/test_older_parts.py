"""pipeline/output/reuse/older_parts.py: the index of rows by digest, and reading them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import ConfigError, DatasetError
from pipeline.output.publication import to_parquet
from pipeline.output.reuse.footer import digests_metadata
from pipeline.output.reuse.older_parts import NOT_FOUND, PartRows, read_parts
from pipeline.output.run_folder import RunFolder


def digest(number: int) -> bytes:
    return number.to_bytes(2, "big") * 8


def put_part(folder: RunFolder, number: int, samples: list[int], status: list[str]) -> None:
    """Writes a part; row i has `samples[i]` samples, and the digest of its number."""
    index: list[int] = []
    texts: list[str] = []
    for row, count in enumerate(samples):
        index += range(count)
        texts += [f"{number}/{row}/{sample}" for sample in range(count)]
    table = pa.table({"sample_index": pa.array(index, pa.int32()), "status": status, "text": texts})
    table = table.replace_schema_metadata({"run_fingerprint": "fp"})
    digests = b"".join(digest(100 * number + row + 1) for row in range(len(samples)))
    folder.client.put_if_absent(
        folder.part_url(number), to_parquet(table, digests_metadata(digests))
    )


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(str(tmp_path))
    put_part(folder, 0, [1, 2], ["ok"] * 3)
    put_part(folder, 4, [2, 1], ["ok", "error", "ok"])
    return folder


def test_rows_are_found_by_digest_and_read_in_order(folder: RunFolder) -> None:
    rows = PartRows(read_parts(folder, "fp"), ["sample_index", "status", "text"])
    locations = rows.find(digest(402) + digest(7) + digest(2) + bytes(16) + digest(1))
    assert (locations == NOT_FOUND).tolist() == [False, True, False, True, False]

    older = rows.take(locations[locations != NOT_FOUND])
    assert older.table["text"].to_pylist() == ["4/1/0", "0/1/0", "0/1/1", "0/0/0"]
    assert older.samples.tolist() == [1, 2, 1]
    assert older.runs == (folder.url,)
    assert rows.rows_by_run(locations[locations != NOT_FOUND]) == {folder.url: 3}


def test_rows_with_an_error_are_not_found(folder: RunFolder) -> None:
    parts = read_parts(folder, "fp")
    assert [part.has_errors for part in parts] == [False, True]
    rows = PartRows(parts, ["text"])
    assert rows.find(digest(401)).tolist() == [NOT_FOUND]
    assert PartRows([], ["text"]).find(digest(1)).tolist() == [NOT_FOUND]


def test_part_of_another_run_is_refused(folder: RunFolder) -> None:
    with pytest.raises(ConfigError, match="was written by a run with fingerprint fp"):
        read_parts(folder, "other")


def test_part_with_other_rows_than_digests_is_damaged(folder: RunFolder) -> None:
    [part, _] = read_parts(folder, "fp")
    (Path(folder.data_url) / "part-00000.parquet").unlink()
    put_part(folder, 0, [3], ["ok"] * 3)
    rows = PartRows([part], ["sample_index", "status", "text"])
    with pytest.raises(DatasetError, match="has 1 input rows, expected 2"):
        rows.take(np.array([0]))
