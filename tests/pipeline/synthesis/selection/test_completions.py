import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.protocol.sampling import MAX_SAMPLES
from pipeline.errors import DatasetError
from pipeline.output.run_folder import RunFolder
from pipeline.synthesis.selection.completions import Completions
from tests.pipeline.synthesis.written_run import (
    ROWS,
    WrittenRun,
    seeds,
    write_prompts,
)


@pytest.fixture
def run(tmp_path: Path) -> WrittenRun:
    return WrittenRun(
        str(tmp_path), write_prompts(str(tmp_path), seeds(tmp_path / "seeds.parquet"))
    )


def test_completions_join_prompt_and_seed_columns(run: WrittenRun) -> None:
    run.commit(range(len(run.shards)))
    completions = run.completions()
    first = next(block for block in completions.blocks if block.shard is not None)
    rows = completions.samples(first).to_pylist()
    assert completions.kept.names == ["id", "a", "b", "name", "text"]
    assert [(row["id"], row["sample_index"], row["a"], row["text"]) for row in rows[:3]] == [
        ("s0", 0, 0, "t0"),
        ("s0", 1, 0, "t0"),
        ("s1", 0, 1, "t1"),
    ]
    assert rows[0]["prompt"] in {"0 + 1 =", "Ana has 0."}
    assert (rows[0]["completion"], rows[0]["mean_logprob"], rows[0]["samples"]) == (
        " s0, sample 0",
        -0.5,
        1,
    )


def test_completions_order_blocks_rejected_prompts_first(run: WrittenRun) -> None:
    completions = run.completions()
    seen = [
        (block.part.number, None if block.shard is None else block.shard.first_row)
        for block in completions.blocks
    ]
    assert seen == sorted(seen, key=lambda each: (each[0], -1 if each[1] is None else each[1]))
    assert {part for part, first in seen if first is None} == {
        part.number for part in completions.parts if part.rejected_rows
    }
    assert completions.seed_rows == ROWS
    rejected = completions.rejected_prompts(
        next(block for block in completions.blocks if block.shard is None)
    ).to_pylist()
    assert {(row["reason"], row["samples"], row["name"]) for row in rejected} == {
        ("null_value", 2, None)
    }


def test_completions_refuse_run_over_other_prompts(run: WrittenRun, tmp_path: Path) -> None:
    other = write_prompts(str(tmp_path / "other"), tmp_path / "seeds.parquet", shard_rows=7)
    with pytest.raises(
        DatasetError, match=r"is no run over the prompts in .*: it lists other files"
    ):
        Completions(other, run.url)
    run.commit([0, 1])
    part = Path(RunFolder(run.url).part_url(0))
    part.write_bytes(Path(RunFolder(run.url).part_url(1)).read_bytes())
    completions = run.completions()
    with pytest.raises(DatasetError, match="has other rows than"):
        completions.samples(next(block for block in completions.blocks if block.shard is not None))


def test_mean_logprobs_are_rounded_and_may_be_missing() -> None:
    from pipeline.synthesis.selection.completions import _mean_logprobs

    table = pa.table(
        {
            "completion_tokens": pa.array([3, 0, None], pa.int32()),
            "cumulative_logprob": [-1.0, 0.0, None],
        }
    )
    assert _mean_logprobs(table).to_pylist() == [-0.33, None, None]
    near_zero = pa.table(
        {"completion_tokens": pa.array([3], pa.int32()), "cumulative_logprob": [-0.001]}
    )
    assert str(_mean_logprobs(near_zero)[0]) == "0.0"  # and not -0.0
    assert _mean_logprobs(table.drop_columns(["cumulative_logprob"])).to_pylist() == [None] * 3


def test_rejected_prompts_stand_for_their_own_number_of_samples(tmp_path: Path) -> None:
    own = [None, 1, MAX_SAMPLES, MAX_SAMPLES + 1, 0, -1, 2, 3]
    table = {
        "id": [f"s{row}" for row in range(8)],
        "a": [1] * 8,
        "b": [None] * 8,
        "name": [None] * 8,
    }
    path = tmp_path / "seeds.parquet"
    kept = pa.table({**table, "n": pa.array(own, pa.int64())})
    pq.write_table(kept.set_column(2, "b", pa.array([1] * 8)), path)
    run = WrittenRun(str(tmp_path), write_prompts(str(tmp_path), path), n=5)
    completions = run.completions()
    samples = {}
    for block in completions.blocks:
        if block.shard is None:
            for row in completions.rejected_prompts(block).to_pylist():
                samples[row["id"]] = row["samples"]
    expected = [5, 1, MAX_SAMPLES, 1, 1, 1, 2, 3]
    assert samples
    assert samples == {name: expected[int(name[1:])] for name in samples}
    assert completions._expected_samples(kept) == expected


def test_completions_refuse_run_of_another_task(run: WrittenRun) -> None:
    file = Path(RunFolder(run.url).run_url)
    description = json.loads(file.read_text())
    description["fingerprint_keys"]["task"] = "score"
    file.write_text(json.dumps(description))
    with pytest.raises(DatasetError, match="is no run over the prompts"):
        run.completions()
