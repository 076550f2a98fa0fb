"""Prompts of rows, read again from the input that run.json lists."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.inspection.prompts import read_prompts
from pipeline.errors import ConfigError, DatasetError
from pipeline.input.listing import list_input
from pipeline.output.run_folder import RunFolder

CONFIG = {
    "task": "generate",
    "prompt_column": "prompt",
    "id_column": "id",
    "continuation_column": "continuation",
    "shard_rows": 2,
    "limit": None,
}


def run(folder: Path, **config: Any) -> RunFolder:
    """Writes an input of five rows and a run.json that lists it."""
    rows = [{"id": f"r{row}", "prompt": f"prompt {row}"} for row in range(5)]
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "input.parquet")
    files = []
    for file in list_input(str(folder / "input.parquet")):
        entry = {"url": file.url, "size": file.size, "version": file.version, "rows": file.rows}
        files.append(entry)
    description = {"fingerprint_keys": {}, "config": {**CONFIG, **config}, "input": files}
    (folder / "run.json").write_text(json.dumps(description))
    return RunFolder(str(folder))


def test_prompts_are_found_by_shard_and_id(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    found = read_prompts(folder, [(0, "r1"), (2, "r4"), (1, "no such id")], None)
    assert found == {"r1": "prompt 1", "r4": "prompt 4"}


def test_prompts_of_sampled_rows_are_found_in_their_shards(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", sample=3, sample_seed=1)
    rows = [(shard, f"r{row}") for shard in range(2) for row in range(5)]
    found = read_prompts(folder, rows, None)
    assert len(found) == 3
    assert all(prompt == f"prompt {row_id[1:]}" for row_id, prompt in found.items())


def test_prompts_of_a_template_are_refused(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", template="t.j2")
    with pytest.raises(ConfigError, match="--keep-prompt"):
        read_prompts(folder, [(0, "r1")], None)


def test_input_that_is_gone_is_an_error(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    (tmp_path / "run" / "input.parquet").unlink()
    with pytest.raises(DatasetError):
        read_prompts(folder, [(0, "r1")], None)


def test_description_of_another_job_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"fingerprint_keys": {}}')
    with pytest.raises(ConfigError, match="is not the description of a run of rows"):
        read_prompts(RunFolder(str(tmp_path)), [(0, "r1")], None)
