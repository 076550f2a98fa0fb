"""Counts of committed parts: tokens by column, errors by code, and examples of them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.monitoring.progress import EXAMPLE_CHARS
from pipeline.output.part_counts import PartCounts, count_parts
from pipeline.output.run_folder import RunFolder
from pipeline.output.schema import FINGERPRINT_KEY

# rows 0, 1 and 2 with 2, 1 and 1 samples; a sample of row 0 and row 2 failed
STATUS = {
    "id": ["a", "a", "b", "c"],
    "sample_index": pa.array([0, 1, 0, 0], pa.int32()),
    "status": ["ok", "error", "ok", "error"],
    "error_code": [None, "engine_crash", None, "prompt_too_long"],
    "error_message": [None, "died", None, "x" * 1000],
}


def test_counts_of_generated_samples() -> None:
    counts = PartCounts()
    tokens = {
        "prompt_tokens": pa.array([5, None, 9, None], pa.int32()),
        "completion_tokens": pa.array([2, 0, 0, None], pa.int32()),
        "cached_tokens": pa.array([4, None, 0, None], pa.int32()),
    }
    counts.add(7, pa.table(STATUS | tokens))
    assert (counts.prompt_tokens, counts.completion_tokens, counts.cached_tokens) == (14, 2, 4)
    assert counts.failed_rows == 2
    assert counts.errors == {"engine_crash": 1, "prompt_too_long": 1}
    assert counts.prompt_lengths == {5: 1, 9: 1}
    assert counts.completion_lengths == {2: 1, 0: 1}
    assert counts.examples["engine_crash"] == [{"id": "a", "shard": 7, "row": 0, "message": "died"}]
    (example,) = counts.examples["prompt_too_long"]
    assert (example["row"], len(str(example["message"]))) == (2, EXAMPLE_CHARS)


@pytest.mark.parametrize(
    "scored",
    [
        pa.array([3, None, 1, None], pa.int32()),
        pa.array([[1, 2], None, [1], []], pa.list_(pa.int32())),
    ],
)
def test_counts_of_scored_tokens(scored: pa.Array) -> None:
    counts = PartCounts()
    prompt = pa.array([5, None, 9, None], pa.int32())
    counts.add(0, pa.table(STATUS | {"prompt_tokens": prompt, "scored_tokens": scored}))
    assert (counts.prompt_tokens, counts.completion_tokens) == (18, 0)
    assert counts.completion_lengths == {3: 1, 1: 1}


def test_count_parts_adds_parts_of_the_run_only(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    table = pa.table(STATUS).replace_schema_metadata({FINGERPRINT_KEY: "fp"})
    for number in (0, 1):
        file = pa.BufferOutputStream()
        pq.write_table(table, file)
        storage.overwrite(folder.part_url(number), file.getvalue().to_pybytes())
    assert count_parts(folder, [0, 1], "fp").failed_rows == 4
    with pytest.raises(ConfigError, match=r"part-00000\.parquet was written by a run"):
        count_parts(folder, [0, 1], "other")
