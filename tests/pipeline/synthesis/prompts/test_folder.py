import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, DatasetError
from pipeline.input.listing import list_input
from pipeline.input.shards import plan_shards
from pipeline.records import Shard
from pipeline.synthesis.prompts.folder import PromptsFolder
from tests.pipeline.synthesis.built_prompts import STORY, built, seeds


def write(folder: PromptsFolder, path: Path, *, only: int | None = None) -> tuple[Shard, ...]:
    shards = plan_shards(list_input(str(path)), 4)
    prompts = built(path, STORY)
    count = len(shards) if only is None else only
    todo = shards[:count]
    assert tuple(folder.write(todo, shards, iter(prompts[:count]), "mark")) == todo
    return shards


def test_folder_returns_parts_as_written(tmp_path: Path) -> None:
    folder, path = PromptsFolder(str(tmp_path / "out")), seeds(tmp_path / "s.parquet")
    write(folder, path)
    parts = folder.parts()
    assert [(part.number, part.file.rows, part.rejected_rows) for part in parts] == [
        (0, 3, 1),
        (1, 2, 2),
        (2, 2, 0),
    ]
    assert [row["id"] for row in folder.rejected(parts[1]).to_pylist()] == ["s4", "s7"]
    assert sorted(name.name for name in (tmp_path / "out" / "rejected").iterdir()) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]


def test_folder_refuses_incomplete_prompts(tmp_path: Path) -> None:
    folder, path = PromptsFolder(str(tmp_path / "out")), seeds(tmp_path / "s.parquet")
    write(folder, path, only=2)
    with pytest.raises(DatasetError, match="holds no complete prompts"):
        folder.parts()
    write(folder, path)  # the parts that are there are found as they would be
    assert len(folder.parts()) == 3


def test_folder_keeps_objects_written_before_a_kill(tmp_path: Path) -> None:
    folder, path = PromptsFolder(str(tmp_path / "out")), seeds(tmp_path / "s.parquet")
    write(folder, path)
    part = tmp_path / "out" / "data" / "part-00001.parquet"
    before = {
        file: (file.read_bytes(), file.stat().st_mtime_ns)
        for file in (tmp_path / "out").rglob("part-*")
        if file != part
    }
    part.unlink()
    write(folder, path)
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in before} == before
    assert len(folder.parts()) == 3


def test_folder_refuses_other_prompts(tmp_path: Path) -> None:
    folder, path = PromptsFolder(str(tmp_path / "out")), seeds(tmp_path / "s.parquet")
    write(folder, path)
    other = pa.Table.from_pylist(
        [json.loads(json.dumps(row)) | {"a": 99} for row in pq.read_table(path).to_pylist()]
    )
    pq.write_table(other, tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match="is there and holds other prompts"):
        write(folder, tmp_path / "t.parquet")
