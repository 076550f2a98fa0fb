"""jobs/run/reuse/older_runs.py: which older runs fit, and what is logged of the others."""

import pyarrow.parquet as pq
import pytest

from tests.jobs.run.reuse.older import Runs, prompts


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dtype", "float32"], 'dtype was "bfloat16", is "float32"'),
        (["--task", "perplexity"], 'task was "generate", is "perplexity"'),
    ],
)
def test_run_of_other_settings_is_refused(runs: Runs, flags: list[object], message: str) -> None:
    runs.write("a.jsonl", prompts(0, 3))
    runs.run("old")
    printed = runs.run("new", *flags, code=2, reuse=["old"])
    assert "no row of this run can be copied" in printed
    assert message in printed
    assert not (runs.folder / "new").exists()


def test_folder_without_a_run_and_the_output_are_refused(runs: Runs) -> None:
    runs.write("a.jsonl", prompts(0, 3))
    assert "holds no run" in runs.run("new", code=2, reuse=["nothing"])
    assert "is the --output itself" in runs.run("new", code=2, reuse=["new"])


def test_columns_that_the_older_run_lacks_are_computed(runs: Runs) -> None:
    runs.write("a.jsonl", prompts(0, 3))
    runs.run("old", "--logprobs", "null")
    printed = runs.run("new", reuse=["old"])
    assert len(runs.computed) == 3
    assert "no row is copied, because the run wrote other log-probs" in printed
    assert "token_logprobs" in runs.table("new").column_names


def test_run_without_digests_gives_parts_of_unchanged_files(runs: Runs) -> None:
    """Earlier versions wrote no digests."""
    runs.write("a.jsonl", prompts(0, 6))
    runs.run("old")
    for path in sorted((runs.folder / "old" / "data").iterdir()):
        pq.write_table(pq.read_table(path), path)
    runs.write("b.jsonl", prompts(6, 7))
    printed = runs.run("new", reuse=["old"])
    assert list(runs.computed) == ["r6"]
    assert "2 of 2 parts have no digests of their rows" in printed

    runs.write("a.jsonl", prompts(0, 5))
    printed = runs.run("other", code=2, reuse=["old"])
    assert "its parts have no digests of their rows" in printed
