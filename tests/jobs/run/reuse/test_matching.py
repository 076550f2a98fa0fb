"""jobs/run/reuse/matching.py: which rows of a run are matched before it starts."""

import json

from tests.jobs.run.reuse.older import Runs, prompts


def test_dry_run_counts_rows_to_copy(runs: Runs) -> None:
    runs.write("a.jsonl", prompts(0, 6))
    runs.run("old")
    runs.write("a.jsonl", prompts(0, 7))
    printed = runs.run("new", "--dry-run", "true", reuse=["old"])
    assert f"6 rows of {runs.folder / 'old'}: copied; 1 rows: computed" in printed
    assert not (runs.folder / "new").exists()

    runs.write("a.jsonl", prompts(1, 5))
    flags = ["--dry-run", "true", "--json", "true"]
    figures = json.loads(runs.run("new", *flags, reuse=["old"]))
    assert figures["reuse"]["rows_copied"] == 4
    assert (figures["rows"], figures["reuse"]["rows_computed"]) == (0, 0)


def test_row_is_matched_only_with_the_same_sampling(runs: Runs) -> None:
    """Seeds follow from the id; parameters of a row and of the run count."""
    runs.write("a.jsonl", prompts(0, 3, max_tokens=2))
    runs.run("old", "--temperature", 1)
    rows = prompts(0, 3, max_tokens=2)
    rows[1]["max_tokens"] = 3
    runs.write("a.jsonl", rows)
    runs.run("new", "--temperature", 1, reuse=["old"])
    assert list(runs.computed) == ["r1"]
    runs.run("other", "--temperature", 1, "--seed", 1, reuse=["old"])
    assert len(runs.computed) == 3
