from dataclasses import replace
from pathlib import Path

import pytest

from actors.protocol.messages import RowRef
from pipeline.errors import DatasetError
from pipeline.records import PromptRow
from pipeline.requests.sample import (
    SAMPLED_SHARDS,
    RequestSample,
    SampleReader,
    sample_requests,
    sampled_shards,
)
from tests.jobs.run.plans import PROMPT, demo_plan


def sample_of(folder: Path, prompts: list[list[int]], shard_rows: int, limit: int) -> RequestSample:
    plan = demo_plan(folder, prompts, shard_rows=shard_rows)
    return sample_requests(
        plan.shards, plan.schema, plan.task, plan.tokenizer, plan.rules, rows_of_shard=limit
    )


def test_sample_has_the_first_rows_of_shards_spread_over_the_input(tmp_path: Path) -> None:
    prompts = [[*PROMPT, 100 + row] for row in range(80)]

    sample = sample_of(tmp_path, prompts, shard_rows=5, limit=2)

    first_rows = range(0, 80, 10)  # of every second of 16 shards
    assert sample.rows == 2 * SAMPLED_SHARDS
    assert sorted(request.prompt_ids[-1] for request in sample.requests) == sorted(
        100 + first + row for first in first_rows for row in range(2)
    )
    assert (sample.failed, sample.unreadable) == (0, None)


def test_sample_counts_rows_that_cannot_run(tmp_path: Path) -> None:
    sample = sample_of(tmp_path, [list(PROMPT), [], list(PROMPT)], shard_rows=3, limit=3)
    assert (sample.rows, sample.failed, len(sample.requests)) == (3, 1, 2)


def test_sample_holds_the_error_of_a_file_that_changed(tmp_path: Path) -> None:
    plan = demo_plan(tmp_path, [list(PROMPT)] * 4)
    (tmp_path / "rows.jsonl").unlink()

    sample = sample_requests(plan.shards, plan.schema, plan.task, plan.tokenizer, plan.rules)

    assert sample.requests == ()
    with pytest.raises(DatasetError, match=r"rows\.jsonl"):
        raise sample.unreadable or AssertionError


def test_sample_of_texts_in_windows_is_bounded_by_characters(tmp_path: Path) -> None:
    """Two texts of each shard: the one that exceeds the bound is the last one."""
    plan = demo_plan(tmp_path, [[5, 6]] * 20, shard_rows=10)
    rules = replace(plan.rules, overflow="window")
    rows = [PromptRow(RowRef(row // 10, row % 10), row, prompt="x" * 600_000) for row in range(20)]

    reader = SampleReader(rules)
    read = list(reader.bounded(rows))

    assert [item.ref.row for item in read if isinstance(item, PromptRow)] == [0, 1, 0, 1]
    assert reader.left_out == 16
    assert list(SampleReader(plan.rules).bounded(rows)) == rows


def test_sampled_shards_of_a_short_input_are_all_shards(tmp_path: Path) -> None:
    shards = demo_plan(tmp_path, [PROMPT] * 6, shard_rows=2).shards
    assert [shard.number for shard in sampled_shards(shards)] == [0, 1, 2]
