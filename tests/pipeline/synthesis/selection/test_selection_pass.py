from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.synthesis.selection.completions import Completions
from pipeline.synthesis.selection.rules import SelectionRules
from pipeline.synthesis.selection.selection import Outcome, Selection
from pipeline.synthesis.selection.selection_pass import SelectionPass
from tests.memory_s3 import MemoryS3, serve
from tests.pipeline.synthesis.written_run import (
    ROWS,
    WrittenRun,
    failure,
    run_on_storage,
    seeds,
    write_prompts,
)


@pytest.fixture
def run(tmp_path: Path) -> WrittenRun:
    return WrittenRun(
        str(tmp_path), write_prompts(str(tmp_path), seeds(tmp_path / "seeds.parquet"))
    )


def selection_pass(
    completions: Completions, rules: SelectionRules, until: int | None = None
) -> SelectionPass:
    selection = Selection(rules, completions.kept, logprobs=True)
    return SelectionPass(completions, selection, until)


RULES = SelectionRules(dedup_memory_mb=1)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_selection_pass_does_not_depend_on_order_of_commits(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _check_any_order(serve(MemoryS3(), patch), data)


def _check_any_order(root: str, data: st.DataObject) -> None:
    run = run_on_storage(root)
    order = data.draw(st.permutations(range(len(run.shards))))
    rules = SelectionRules(dedup_memory_mb=1, target_rows=data.draw(st.none() | st.integers(1, 30)))
    during_run = selection_pass(run.completions(), rules)
    outcomes: list[Outcome] = []
    for number in order:
        run.commit([number])
        outcomes += during_run.outcomes()
    afterwards = selection_pass(run.completions(), rules)
    expected = list(afterwards.outcomes())
    assert afterwards.ended
    assert during_run.ended
    for kind in ("accepted", "rejected"):
        table = pa.concat_tables(getattr(outcome, kind) for outcome in outcomes)
        assert table.equals(pa.concat_tables(getattr(outcome, kind) for outcome in expected))
    report = during_run.selection.statistics.report()
    assert report == afterwards.selection.statistics.report()


def test_selection_pass_ends_when_first_shards_reach_target(run: WrittenRun) -> None:
    running = selection_pass(run.completions(), SelectionRules(dedup_memory_mb=1, target_rows=4))
    run.commit([3, 1])
    running.advance()
    assert (running.ended, running.shards_read) == (False, 0)
    assert running.next_block is not None
    run.commit([0])
    running.advance()
    assert running.ended
    assert running.selection.stopped_by == "target_rows"
    assert running.selection.statistics.accepted == 4


def test_selection_pass_ignores_blocks_beyond_budget(run: WrittenRun) -> None:
    run.commit(range(len(run.shards)))
    bounded = selection_pass(run.completions(), RULES, until=2)
    assert len(list(bounded.outcomes())) == 2
    assert bounded.ended
    assert bounded.position == 2


def test_failed_row_counts_for_all_its_samples(tmp_path: Path) -> None:
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

    run = WrittenRun(str(tmp_path), prompts, answer=answer)
    run.commit(range(len(run.shards)))
    complete = selection_pass(run.completions(), RULES)
    rejected = pa.concat_tables(outcome.rejected for outcome in complete.outcomes()).to_pylist()
    failed = [row for row in rejected if row["stage"] == "generation"]
    assert [(row["id"], row["sample_index"], row["reason"], row["samples"]) for row in failed] == [
        ("s0", 0, "prompt_too_long", 2),
        ("s1", 0, "prompt_too_long", 3),
        ("s3", 1, "engine_crash", 1),
    ]
    counted = complete.selection.statistics
    assert (
        counted.samples
        == sum(n or 2 for n in own_n.to_pylist())
        == counted.accepted + counted.rejected + counted.failed
    )
    assert counted.failed == 6


def test_selection_pass_continues_after_an_abandoned_reader(run: WrittenRun) -> None:
    run.commit(range(len(run.shards)))
    abandoned = selection_pass(run.completions(), RULES)
    first = next(abandoned.outcomes())
    assert abandoned.position == 1
    ids = first.accepted["id"].to_pylist() + first.rejected["id"].to_pylist()
    for outcome in abandoned.outcomes():
        ids += outcome.accepted["id"].to_pylist() + outcome.rejected["id"].to_pylist()
    complete = selection_pass(run.completions(), RULES)
    complete.advance()
    assert abandoned.selection.statistics.report() == complete.selection.statistics.report()
    assert set(ids) == {f"s{row}" for row in range(ROWS)}
