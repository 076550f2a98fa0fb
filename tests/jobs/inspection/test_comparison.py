"""comparison.py: planted differences between two runs are found, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.inspection.comparison import Comparison, compare_runs, first_difference
from pipeline.output.run_folder import RunFolder

ROWS = 12
PART_ROWS = 5
Change = Callable[[list[dict[str, Any]]], object]


def rows() -> list[dict[str, Any]]:
    """Rows of a run that completes and scores."""
    return [
        {
            "id": f"row/{number // 2}",
            "sample_index": number % 2,
            "status": "ok",
            "text": "a b c",
            "token_ids": [1, 2, 3],
            "token_logprobs": [-0.5, -0.25, -1.0],
            "loglikelihood": [-1.0, -2.0],
            "is_greedy": [True, False],
        }
        for number in range(ROWS)
    ]


def write(folder: Path, content: list[dict[str, Any]]) -> RunFolder:
    (folder / "data").mkdir(parents=True)
    schema = pa.Table.from_pylist(rows()).schema
    for part in range(0, len(content), PART_ROWS):
        table = pa.Table.from_pylist(content[part : part + PART_ROWS], schema)
        pq.write_table(table, folder / "data" / f"part-{part // PART_ROWS:05d}.parquet")
    return RunFolder(str(folder))


def compared(tmp_path: Path, change: Change) -> Comparison:
    changed = rows()
    result = change(changed)
    if isinstance(result, list):
        changed = result
    return compare_runs(write(tmp_path / "a", rows()), write(tmp_path / "b", changed))


def test_equal_runs_are_identical(tmp_path: Path) -> None:
    comparison = compared(tmp_path, lambda content: content)
    assert comparison.identical
    assert (comparison.rows_a, comparison.rows_b, comparison.common) == (ROWS, ROWS, ROWS)
    assert comparison.logprob_differences.count == 3 * ROWS
    assert comparison.likelihood_differences.count == 2 * ROWS


def test_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    assert compared(tmp_path, lambda content: content[::-1]).identical


def test_first_diverging_token_ends_the_comparison_of_log_probs(tmp_path: Path) -> None:
    comparison = compared(
        tmp_path,
        lambda content: content[3].update(
            text="a b d", token_ids=[1, 2, 4, 5], token_logprobs=[-0.5, -0.5, -9.0, -9.0]
        ),
    )
    assert not comparison.identical
    assert comparison.diverging == 1
    assert comparison.positions == {2: 1}
    [divergence] = comparison.divergences
    assert (divergence.id, divergence.sample_index, divergence.position) == ("row/1", 1, 2)
    assert (divergence.text_a, divergence.text_b) == ("a b c", "a b d")
    assert comparison.logprob_differences.count == 3 * (ROWS - 1) + 2
    assert comparison.logprob_differences.largest == pytest.approx(0.25)


def test_scores_count_as_changed_where_the_preferred_choice_does(tmp_path: Path) -> None:
    comparison = compared(
        tmp_path,
        lambda content: content[0].update(loglikelihood=[-1.0, -0.5], is_greedy=[True, True]),
    )
    assert comparison.changed_choices == 1
    assert comparison.changed_greedy == 1
    assert comparison.likelihood_differences.not_zero == 1
    assert comparison.likelihood_differences.largest == pytest.approx(1.5)
    assert not comparison.identical


def test_rows_of_one_run_alone_are_listed(tmp_path: Path) -> None:
    comparison = compared(tmp_path, lambda content: [*content[2:], {**content[0], "id": "another"}])
    assert (comparison.rows_a, comparison.rows_b, comparison.common) == (ROWS, ROWS - 1, ROWS - 2)
    assert comparison.only_a == ["row/0", "row/0"]
    assert comparison.only_b == ["another"]
    assert not comparison.identical


def test_error_rows_are_changes_of_status(tmp_path: Path) -> None:
    comparison = compared(
        tmp_path,
        lambda content: content[5].update(status="error", text=None, token_ids=None),
    )
    assert comparison.status_changes == {("ok", "error"): 1}
    assert comparison.diverging == 0
    assert not comparison.identical


def test_infinite_scores_may_be_equal(tmp_path: Path) -> None:
    both = [{**row, "loglikelihood": [float("-inf"), -1.0]} for row in rows()]
    comparison = compare_runs(write(tmp_path / "a", both), write(tmp_path / "b", both))
    assert comparison.identical


@pytest.mark.parametrize(
    ("ids_a", "ids_b", "position"),
    [([1, 2], [1, 2], None), ([1, 2], [1, 3], 1), ([1], [1, 2], 1), ([], [5], 0), ([], [], None)],
)
def test_first_difference_is_a_position(
    ids_a: list[int], ids_b: list[int], position: int | None
) -> None:
    assert first_difference(ids_a, ids_b) == position


def scored_run(folder: Path, ids: list[list[int]], logprobs: list[list[float]]) -> RunFolder:
    """Writes a run of one row with two choices."""
    (folder / "data").mkdir(parents=True)
    row = {
        "id": "row",
        "sample_index": 0,
        "status": "ok",
        "loglikelihood": [sum(values) for values in logprobs],
        "is_greedy": [True, False],
        "scored_token_ids": ids,
        "scored_logprobs": logprobs,
    }
    pq.write_table(pa.Table.from_pylist([row]), folder / "data" / "part-00000.parquet")
    return RunFolder(str(folder))


def test_scored_tokens_are_compared_up_to_the_first_that_differs(tmp_path: Path) -> None:
    logprobs = [[-0.5, -0.25], [-1.0, -0.75]]
    run = scored_run(tmp_path / "a", [[1, 2], [1, 3]], logprobs)
    equal = compare_runs(run, scored_run(tmp_path / "b", [[1, 2], [1, 3]], logprobs))
    assert equal.identical
    assert equal.logprob_differences.count == 4

    changed = scored_run(tmp_path / "c", [[1, 2], [1, 4]], [[-0.25, -0.5], [-1.0, -0.75]])
    comparison = compare_runs(run, changed)
    assert not comparison.identical
    assert comparison.logprob_differences.count == 3
    assert comparison.logprob_differences.not_zero == 2
    assert (comparison.diverging, dict(comparison.positions)) == (1, {1: 1})
