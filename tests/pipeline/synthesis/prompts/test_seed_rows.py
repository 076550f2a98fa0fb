from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, DatasetError
from pipeline.input.listing import list_input
from pipeline.input.shards import plan_shards
from pipeline.synthesis.prompts.seed_rows import SeedSchema, inspect_seeds, read_seeds
from tests.pipeline.synthesis.built_prompts import seeds


def test_inspect_seeds_refuses_unknown_columns_and_wrong_types(tmp_path: Path) -> None:
    path = seeds(tmp_path / "s.parquet")
    with pytest.raises(
        ConfigError, match="--keep: the seeds have no column 'z'; they have a, b, name, n"
    ):
        inspect_seeds(list_input(str(path)), "id", ("z",))
    pq.write_table(pa.table({"temperature": ["hot"]}), tmp_path / "t.parquet")
    with pytest.raises(DatasetError, match="column 'temperature' is string, expected a number"):
        inspect_seeds(list_input(str(tmp_path / "t.parquet")), "id")
    pq.write_table(pa.table({"id": [0.5]}), tmp_path / "u.parquet")
    with pytest.raises(DatasetError, match="column 'id' is double"):
        inspect_seeds(list_input(str(tmp_path / "u.parquet")), "id")


def test_seed_schema_keeps_sampling_columns_out_of_the_data_set(tmp_path: Path) -> None:
    schema: SeedSchema = inspect_seeds(list_input(str(seeds(tmp_path / "s.parquet"))), "id")
    assert schema.kept.names == ["a", "b", "name", "n"]
    assert schema.passed_on.names == ["id", "a", "b", "name"]


def test_seeds_have_the_columns_of_their_folders(tmp_path: Path) -> None:
    for number, topic in enumerate(["law", "sums"]):
        folder = tmp_path / f"topic={topic}" / f"n={number + 1}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"a": [number]}), folder / "s.parquet")
    files = list_input(str(tmp_path))
    schema = inspect_seeds(files, "id")
    blocks = list(read_seeds(plan_shards(files, 10), schema))
    assert [dict(block.rows[0]) for block in blocks] == [
        {"a": 0, "topic": "law", "n": 1},
        {"a": 1, "topic": "sums", "n": 2},
    ]
    assert schema.passed_on.names == ["id", "a", "topic"]
    with pytest.raises(DatasetError, match="column 'topic' is the name of a folder"):
        inspect_seeds(files, "topic")
    assert blocks[1].kept.to_pydict() == {"a": [1], "topic": ["sums"], "n": [2]}
