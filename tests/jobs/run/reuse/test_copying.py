"""--reuse through the entry point: which rows are copied, and that the table is a full run's."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from actors.protocol.errors import EngineCrashError
from actors.protocol.messages import Completion, Request
from jobs import score_dataset
from pipeline.output.reuse.footer import COPIED_ROWS, ROW_DIGESTS
from tests import fakes
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.run.reuse.older import Runs, prompts
from tests.regression import pins


def footer(runs: Runs, output: str, part: int = 0) -> dict[bytes, bytes]:
    path = runs.folder / output / "data" / f"part-{part:05d}.parquet"
    return dict(pq.ParquetFile(path).metadata.metadata)


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--n", 3, "--temperature", 0.8, "--seed", 5], id="samples"),
        pytest.param(["--task", "perplexity", "--token-logprobs", "true"], id="perplexity"),
    ],
)
def test_run_copies_unchanged_files_and_computes_new_ones(runs: Runs, flags: list[object]) -> None:
    runs.write("a.jsonl", prompts(0, 6))
    runs.run("old", *flags)
    runs.write("b.jsonl", prompts(6, 9))

    printed = runs.run("new", *flags, reuse=["old"])
    assert sorted(runs.computed) == ["r6", "r7", "r8"]
    assert f"copied 6 rows of {runs.folder / 'old'}, computed 3" in printed
    runs.run("full", *flags)
    assert runs.table("new").equals(runs.table("full"))
    reuse = runs.report("new")["reuse"]
    assert (reuse["rows_copied"], reuse["parts_copied"], reuse["rows_computed"]) == (6, 2, 3)
    assert runs.report("new")["rows"]["total"] == 3


def test_run_copies_rows_that_moved_and_computes_changed_ones(runs: Runs) -> None:
    """Rows are inserted, edited, removed and reordered; other columns come from the new input."""
    runs.write("a.jsonl", prompts(0, 10, source="old"))
    flags = ["--n", 2, "--temperature", 1, "--seed", 3]
    runs.run("old", *flags)
    rows = prompts(0, 10, source="new")
    rows[3]["prompt"] = "Edited"
    del rows[7]
    runs.write("a.jsonl", [*prompts(20, 22, source="new"), *reversed(rows)])

    printed = runs.run("new", *flags, reuse=["old"])
    assert sorted(runs.computed) == ["r20", "r21", "r3"]
    assert "copied 8 rows of" in printed
    runs.run("full", *flags)
    assert runs.table("new").equals(runs.table("full"))
    assert set(runs.table("new")["source"].to_pylist()) == {"new"}
    assert footer(runs, "new")[COPIED_ROWS.encode()] == b"2"
    assert footer(runs, "new")[ROW_DIGESTS.encode()] == footer(runs, "full")[ROW_DIGESTS.encode()]


def test_run_whose_rows_are_all_there_starts_no_replica(runs: Runs) -> None:
    """Rows of two older runs, the first of which has copied rows itself."""
    runs.write("a.jsonl", prompts(0, 5))
    runs.run("first")
    runs.write("a.jsonl", prompts(3, 8))
    runs.run("second", reuse=["first"])
    runs.write("a.jsonl", prompts(0, 8))

    printed = runs.run("new", reuse=["second", "first"])
    assert not runs.computed
    assert "computed 0" in printed
    assert "5 rows of" in printed
    assert "3 rows of" in printed
    assert runs.report("new")["status"] == "complete"
    assert (runs.folder / "new" / "_SUCCESS").exists()
    runs.run("full")
    assert runs.table("new").equals(runs.table("full"))


def test_rows_with_errors_are_computed_again(runs: Runs) -> None:
    def crash(request: Request) -> Completion:
        if request.row_id == "r2":
            return Completion.failed(request.ref, EngineCrashError.code, "crashed")
        return fakes.answer(request)

    runs.write("a.jsonl", [*prompts(0, 6), {"id": "empty", "prompt": ""}])
    runs.answer = crash
    runs.run("old", code=3)
    runs.answer = fakes.answer
    runs.run("new", code=3, reuse=["old"])
    assert sorted(runs.computed) == ["r2"]
    runs.run("full", code=3)
    assert runs.table("new").equals(runs.table("full"))


def test_resumed_run_and_retried_rows_keep_digests(runs: Runs) -> None:
    runs.write("a.jsonl", prompts(0, 8))
    runs.answer = lambda request: replace(
        fakes.answer(request), error_code="engine_crash" if request.row_id == "r1" else None
    )
    runs.run("old", code=3)
    runs.answer = fakes.answer
    runs.run("old", "--retry-failed", "true")
    assert sorted(runs.computed) == ["r1"]

    runs.write("b.jsonl", prompts(8, 12))
    runs.run("new", reuse=["old"])
    (runs.folder / "new" / "data" / "part-00000.parquet").unlink()
    (runs.folder / "new" / "_SUCCESS").unlink()
    runs.run("new", reuse=["old"])
    assert not runs.computed
    runs.run("full")
    assert runs.table("new").equals(runs.table("full"))


def test_runs_on_object_storage_are_copied(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = pins.memory(monkeypatch)
    backend = FakeBackend(info=fakes.DESCRIBED, draws_plots=False)
    flags = ["-i", f"{pins.ROOT}/in", "--model", "demo", "--shard-rows", "4", "--max-tokens", "3"]
    pins.put_lines("in/a.jsonl", prompts(0, 6))
    assert score_dataset.main([*flags, "-o", f"{pins.ROOT}/old"], backend) == 0

    pins.put_lines("in/b.jsonl", prompts(6, 9))
    flags += ["--reuse", f"{pins.ROOT}/old"]
    assert score_dataset.main([*flags, "-o", f"{pins.ROOT}/new"], backend) == 0
    assert f"copied 6 rows of {pins.ROOT}/old, computed 3" in capsys.readouterr().out
    older = pins.objects(store, "old/data")
    for name, part in older.items():
        copied = pins.objects(store, "new/data")[name]
        assert pins.read_table(copied).equals(pins.read_table(part))
