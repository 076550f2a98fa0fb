import dataclasses

import pytest

from actors.protocol.messages import RowRef
from pipeline.records import InputFile, PromptRow, Shard, total_rows


def test_shard_runs_all_rows_and_checks_no_version_by_default() -> None:
    shard = Shard(number=0, url="in.parquet", first_row=0, rows=2)
    assert shard.only is None
    assert shard.version == ""


def test_shards_with_equal_rows_are_one_key() -> None:
    shard = Shard(3, "in.parquet", 10, 2, only=(0,))
    assert {shard: "value"}[Shard(3, "in.parquet", 10, 2, only=(0,))] == "value"
    assert shard != dataclasses.replace(shard, only=None)


def test_prompt_rows_do_not_share_their_parameters() -> None:
    rows = [PromptRow(RowRef(0, row), id=row) for row in range(2)]
    assert rows[0].parameters == {}
    assert rows[0].parameters is not rows[1].parameters


def test_records_are_immutable() -> None:
    file = InputFile("in.parquet", size=1, version="v", rows=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        file.rows = 2  # type: ignore[misc]


def test_total_rows_counts_all_files() -> None:
    files = [InputFile(f"{rows}.parquet", size=9, version="v", rows=rows) for rows in (3, 0, 4)]
    assert total_rows(files) == 7
    assert total_rows([]) == 0
