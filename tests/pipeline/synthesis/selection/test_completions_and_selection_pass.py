from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.output.publication import to_parquet
from pipeline.output.run_folder import RunFolder
from pipeline.synthesis.selection.completions import Completions
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.selection import Outcome, Selection
from pipeline.synthesis.selection.selection_pass import Fold
from tests.memory_s3 import MemoryS3, serve
from tests.pipeline.synthesis.written_run import OwnRun, failure, write_prompts

ROWS = 20


def seeds(path: Path | None = None, **more: Any) -> Any:
    """Writes the seeds; returns where they are, without a path their bytes."""
    names = ["Ana", "Ben", None, "Ivo", "Mia"]  # every fifth story has no name
    table = {
        "id": [f"s{n}" for n in range(ROWS)],
        "a": list(range(ROWS)),
        "b": [1] * ROWS,
        "name": [names[n % 5] for n in range(ROWS)],
    }
    whole = pa.table({**table, "text": [f"t{n}" for n in range(ROWS)], **more})
    if path is None:
        return to_parquet(whole)
    pq.write_table(whole, path)
    return path


def own_run(root: str) -> OwnRun:
    """Returns a run on object storage of which nothing is committed."""
    storage.put_if_absent(f"{root}/seeds.parquet", seeds())
    return OwnRun(root, write_prompts(root, f"{root}/seeds.parquet"))


@pytest.fixture
def run(tmp_path: Path) -> OwnRun:
    return OwnRun(str(tmp_path), write_prompts(str(tmp_path), seeds(tmp_path / "seeds.parquet")))


def select(
    completions: Completions, rules: SelectionRules, until: int | None = None
) -> tuple[Fold, list[Outcome]]:
    outcomes: list[Outcome] = []
    return Fold(
        completions, Selection(rules, completions.kept, logprobs=True), outcomes.append, until
    ), outcomes


RULES = SelectionRules(dedup_memory_mb=1)


def test_samples_come_with_their_prompt_and_the_seeds_columns(run: OwnRun) -> None:
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


def test_blocks_are_in_input_order_rejected_prompts_first(run: OwnRun) -> None:
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


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_which_shard_was_finished_first_does_not_matter(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _check_any_order(serve(MemoryS3(), patch), data)


def _check_any_order(root: str, data: st.DataObject) -> None:
    run = own_run(root)
    order = data.draw(st.permutations(range(len(run.shards))))
    rules = SelectionRules(dedup_memory_mb=1, target_rows=data.draw(st.none() | st.integers(1, 30)))
    fold, outcomes = select(run.completions(), rules)
    for number in order:
        run.commit([number])
        fold.advance()
    again, whole = select(run.completions(), rules)
    again.advance()
    assert again.ended
    assert fold.ended
    for kind in ("accepted", "rejected"):
        one, other = (
            pa.concat_tables(getattr(each, kind) for each in some) for some in (outcomes, whole)
        )
        assert one.equals(other)
    assert fold.selection.statistics.report() == again.selection.statistics.report()


def test_a_target_ends_the_pass_as_soon_as_the_first_shards_are_there(run: OwnRun) -> None:
    fold, _ = select(run.completions(), SelectionRules(dedup_memory_mb=1, target_rows=4))
    run.commit([3, 1])
    fold.advance()
    assert (fold.ended, fold.shards_read) == (False, 0)
    assert fold.waits_for is not None
    run.commit([0])
    fold.advance()
    assert (fold.ended, fold.selection.enough, fold.waits_for) == (True, "target_rows", None)
    assert fold.selection.statistics.accepted == 4


def test_blocks_beyond_a_budget_do_not_count(run: OwnRun) -> None:
    run.commit(range(len(run.shards)))
    fold, outcomes = select(run.completions(), RULES, until=2)
    fold.advance()
    assert fold.ended
    assert (fold.position, len(outcomes)) == (2, 2)


def test_a_row_that_failed_as_a_whole_stands_for_all_its_samples(tmp_path: Path) -> None:
    own_n = pa.array([None, 3] * (ROWS // 2), pa.int64())
    prompts = write_prompts(str(tmp_path), seeds(tmp_path / "seeds.parquet", n=own_n))

    def answer(row: dict[str, Any], sample: int) -> dict[str, Any]:
        if row["id"] in ("s0", "s1"):
            return failure()
        return (
            failure("engine_crash")
            if row["id"] == "s3" and sample == 1
            else {"text": f"{row['id']} {sample}"}
        )

    run = OwnRun(str(tmp_path), prompts, answer=answer)
    run.commit(range(len(run.shards)))
    fold, outcomes = select(run.completions(), RULES)
    fold.advance()
    failed = [
        row
        for each in outcomes
        for row in each.rejected.to_pylist()
        if row["stage"] == "generation"
    ]
    assert [(row["id"], row["sample_index"], row["reason"], row["samples"]) for row in failed] == [
        ("s0", 0, "prompt_too_long", 2),
        ("s1", 0, "prompt_too_long", 3),
        ("s3", 1, "engine_crash", 1),
    ]
    counted = fold.selection.statistics
    assert (
        counted.samples
        == sum(n or 2 for n in own_n.to_pylist())
        == counted.accepted + counted.rejected + counted.failed
    )
    assert counted.failed == 6


def test_runs_and_prompts_that_do_not_belong_together_are_refused(
    run: OwnRun, tmp_path: Path
) -> None:
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


def test_log_probs_may_be_missing_and_are_rounded() -> None:
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
