"""Files of some kilobytes that stand for 40 GB: their rows fail, and the run ends."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.cli.exit_codes import ExitCode
from jobs.run.config import ScoreConfig
from jobs.run.execute import run_job
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import table

ROWS = 4000
TEXTS: Any = pa.DictionaryArray.from_arrays(
    pa.array([0] * ROWS, pa.int32()), pa.array(["x" * 10_000_000])
)


def run(tmp_path: Path, task: str, **columns: Any) -> pa.Table:
    path = tmp_path / "in.parquet"
    pq.write_table(
        pa.table(columns),
        path,
        compression="zstd",
        dictionary_pagesize_limit=2**30,
        write_statistics=False,
    )
    assert path.stat().st_size < 20_000
    config = ScoreConfig(
        input=str(path),
        output=str(tmp_path / "out"),
        model="demo",
        task=task,  # type: ignore[arg-type]
        max_tokens=2,
        max_error_rate=1.0,
    )
    assert run_job(config, FakeBackend(draws_plots=False)) is ExitCode.ROW_ERRORS
    return table(tmp_path / "out")


def test_prompts_of_40_gigabytes_fail_one_by_one(tmp_path: Path) -> None:
    written = run(tmp_path, "generate", id=range(ROWS), prompt=TEXTS)
    assert written["id"].to_pylist() == list(range(ROWS))
    assert set(written["error_code"].to_pylist()) == {"prompt_too_long", "invalid_prompt"}


def test_choices_of_40_gigabytes_fail_their_row(tmp_path: Path) -> None:
    choices = pa.ListArray.from_arrays(pa.array([0, ROWS], pa.int32()), TEXTS)
    written = run(tmp_path, "score", prompt=["a"], choices=choices)
    assert "40,000,000,000 bytes" in written["error_message"][0].as_py()


def test_prompt_is_not_copied_for_many_choices(tmp_path: Path) -> None:
    prompt = TEXTS.slice(0, 1)
    written = run(tmp_path, "score", prompt=prompt, choices=[["x"] * 1000])
    assert "with the prompt once for each" in written["error_message"][0].as_py()
