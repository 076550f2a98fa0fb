"""run_status.py: how far a run is, from its folder, at every stage of a run of two drivers."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import score_dataset
from jobs.inspection.run_status import QUIET_S, find_runs, read_status
from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from tests.end_to_end.fake_run import FakeBackend

ROWS = 30
SHARD_ROWS = 4
BACKEND = FakeBackend(draws_plots=False)
NOW_S = 2_000_000_000.0


def run(folder: Path, output: str, *flags: object) -> int:
    """Runs the main job on 30 prompts in eight shards of at most four."""
    file = folder / "in.parquet"
    if not file.exists():
        ids = pa.array([[row + 1] for row in range(ROWS)], pa.list_(pa.int32()))
        pq.write_table(pa.table({"id": list(range(ROWS)), "prompt_token_ids": ids}), file)
    words = ["-i", file, "-o", output, "--model", "demo", "--max-len", 64, "--max-tokens", 2]
    words += ["--shard-rows", SHARD_ROWS, *flags]
    return score_dataset.main([str(word) for word in words], BACKEND)


def commit_at(output: Path, seconds: dict[int, float]) -> None:
    """Sets when parts were committed, in seconds before NOW_S."""
    for number, before_s in seconds.items():
        path = output / "data" / f"part-{number:05d}.parquet"
        os.utime(path, (NOW_S - before_s, NOW_S - before_s))


def report_at(output: Path, name: str, before_s: float) -> None:
    os.utime(output / name, (NOW_S - before_s, NOW_S - before_s))


def test_run_of_two_drivers_is_followed_to_its_end(tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run(tmp_path, str(output), "--partition", "0/2") == 0
    half = read_status(str(output))
    assert (half.parts, half.parts_total) == (4, 8)
    assert (half.rows, half.rows_total) == (16, ROWS)
    assert not half.finished
    assert [(end.partition, end.status) for end in half.ends] == [("0/2", "complete")]

    assert run(tmp_path, str(output), "--partition", "1/2") == 0
    whole = read_status(str(output))
    assert (whole.parts, whole.rows, whole.finished) == (8, ROWS, True)
    assert [end.partition for end in whole.ends] == ["0/2", "1/2"]
    assert whole.state(NOW_S) == "finished"


def test_rate_is_that_of_the_last_ten_minutes(tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(tmp_path, str(output), "--partition", "0/2")
    # Shards 0, 2, 4 and 6; the first one an hour ago, on slower machines.
    commit_at(output, {0: 3600, 2: 220, 4: 120, 6: 20})
    status = read_status(str(output))
    assert status.last_part == "part-00006.parquet"
    assert status.rows_per_s == pytest.approx(8 / 200)
    assert status.seconds_left == pytest.approx((ROWS - 16) / (8 / 200))


@pytest.mark.parametrize(
    ("last_part_s", "report_s", "state"),
    [
        (60, 30, "stopped"),  # the report is younger than every part
        (60, 90, "running"),  # another driver has committed since
        (QUIET_S + 1, QUIET_S + 60, "quiet"),
    ],
)
def test_state_follows_from_the_order_of_parts_and_reports(
    tmp_path: Path, last_part_s: float, report_s: float, state: str
) -> None:
    output = tmp_path / "run"
    run(tmp_path, str(output), "--partition", "0/2")
    commit_at(output, {0: last_part_s + 3, 2: last_part_s + 2, 4: last_part_s + 1, 6: last_part_s})
    report_at(output, "report-0-of-2.json", report_s)
    assert read_status(str(output)).state(NOW_S) == state


def test_half_a_report_of_a_killed_driver_is_left_out(tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(tmp_path, str(output), "--partition", "0/2")
    (output / "report-0-of-2.json").write_text('{"status": "comp')
    status = read_status(str(output))
    assert status.ends == ()


def test_sample_bounds_the_rows_of_the_run(tmp_path: Path) -> None:
    assert run(tmp_path, str(tmp_path / "run"), "--sample", 6) == 0
    status = read_status(str(tmp_path / "run"))
    assert (status.rows, status.rows_total) == (6, 6)
    assert status.parts == status.parts_total


def test_limit_bounds_the_rows_of_the_run(tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run(tmp_path, str(output), "--limit", 10) == 0
    status = read_status(str(output))
    assert (status.rows, status.rows_total, status.parts_total) == (10, 10, 3)


def test_runs_of_an_evaluation_are_found_in_its_folder(tmp_path: Path) -> None:
    for name in ("generate", "score"):
        run(tmp_path, str(tmp_path / "evaluation" / name), "--limit", 2)
    found = find_runs(str(tmp_path / "evaluation"))
    assert [Path(url).name for url in found] == ["generate", "score"]
    assert find_runs(found[0]) == [found[0]]


def test_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no run, there is no run\.json"):
        find_runs(str(tmp_path))


@pytest.mark.parametrize(
    ("run_json", "message"),
    [
        ("{}", "is not a run description"),
        ('{"fingerprint_keys": {}}', "is not the description of a run of rows"),
    ],
)
def test_file_that_describes_no_run_is_an_error(
    tmp_path: Path, run_json: str, message: str
) -> None:
    (tmp_path / "run.json").write_text(run_json)
    with pytest.raises(DatasetError, match=message):
        read_status(str(tmp_path))


def test_part_of_another_run_is_an_error(tmp_path: Path) -> None:
    output = tmp_path / "run"
    run(tmp_path, str(output), "--limit", 2)
    (output / "data" / "part-00007.parquet").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"part-00007\.parquet: the run has 1 shards"):
        read_status(str(output))


@pytest.mark.s3
def test_run_on_object_storage_has_the_times_of_its_parts(tmp_path: Path, s3_url: str) -> None:
    output = storage.join(s3_url, "run")
    assert run(tmp_path, output, "--partition", "0/2") == 0
    status = read_status(output)
    assert status.rows == 16
    assert status.last_part_s is not None
    assert [end.written_s is not None for end in status.ends] == [True]
