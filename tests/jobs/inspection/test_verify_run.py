"""verify_run.py: a run on fake replicas, changed in many ways, and its recomputation."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.protocol.messages import Completion, Request, logprobs
from jobs.inspection.verify_run import main
from jobs.run.config import ScoreConfig
from jobs.run.execute import run_job
from tests import fakes
from tests.end_to_end.fake_run import FakeBackend
from tests.jobs.runs import DEMO

ROWS = 40
FAKE = FakeBackend(draws_plots=False)
Verify = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 40 rows in 10 parts."""
    folder = tmp_path_factory.mktemp("verify")
    ids = pa.array([[row + 1, 5] for row in range(ROWS)], pa.list_(pa.int32()))
    columns = {"prompt_token_ids": ids, "answer": list(range(ROWS))}
    pq.write_table(pa.table(columns), folder / "in.parquet")
    assert run_job(config(folder), FAKE) == 0
    return folder


def config(folder: Path, output: str = "run", **flags: Any) -> ScoreConfig:
    values: dict[str, Any] = {
        "input": str(folder / "in.parquet"),
        "output": str(folder / output),
        "model": "demo",
        "max_tokens": 3,
        "max_len": 32,
        "shard_rows": 4,
        "temperature": 1.0,
        "n": 2,
        "seed": 7,
    }
    return ScoreConfig(**(values | flags))


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(original / "run", tmp_path / "run"))


@pytest.fixture
def verify(run: Path, capsys: pytest.CaptureFixture[str]) -> Verify:
    def verify(*flags: object, backend: FakeBackend = FAKE) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        words = [str(run), "--sample", "1", "--json", "true", *map(str, flags)]
        code = main(words, backend)
        return code, json.loads(capsys.readouterr().out)

    return verify


def edit(run: Path, change: Callable[[list[dict[str, Any]]], object], part: int = 2) -> None:
    """Changes the rows of a part, and keeps its schema and metadata."""
    file = run / "data" / f"part-{part:05d}.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), file)


def test_untouched_run_matches_in_every_row(run: Path, verify: Verify) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, found = verify()
    assert code == 0
    assert (found["rows"], found["matching"], found["match_rate"]) == (2 * ROWS, 2 * ROWS, 1.0)
    assert (found["settings"], found["faults"], found["findings"]) == ([], [], [])
    assert found["largest_logprob_difference"] == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_sample_computes_a_share_of_the_rows(verify: Verify) -> None:
    code, found = verify("--sample", "0.1")
    assert (code, found["rows"], found["matching"]) == (0, 8, 8)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("text", "edited"),
        ("token_logprobs", [-0.5, -0.25, -0.125]),
        ("answer", 999),
        ("finish_reason", "stop"),
    ],
)
def test_edited_row_is_named(run: Path, verify: Verify, column: str, value: object) -> None:
    edit(run, lambda rows: rows[3].update({column: value}))
    code, found = verify()
    assert code == 1
    assert found["matching"] == 2 * ROWS - 1
    assert found["columns"] == {column: 1}
    [finding] = found["findings"]
    assert (finding["id"], finding["sample_index"]) == ("in.parquet#9", 1)
    assert finding["what"].startswith(f"{column} is ")


def test_edited_tokens_name_the_first_one_that_differs(run: Path, verify: Verify) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        ids = rows[0]["token_ids"]
        rows[0]["token_ids"] = [ids[0], ids[1] + 1, *ids[2:]]

    edit(run, change)
    code, found = verify()
    assert (code, found["first_diverging_token"], found["columns"]) == (1, 1, {"token_ids": 1})


def test_removed_and_repeated_rows_are_named(run: Path, verify: Verify) -> None:
    edit(run, lambda rows: rows.pop(0))
    code, found = verify()
    assert (code, found["findings"][0]["id"]) == (1, "in.parquet#8")
    assert found["findings"][0]["what"] == "the run does not have it"


def test_part_of_a_run_with_another_seed_is_named(
    original: Path, run: Path, verify: Verify
) -> None:
    if not (original / "other").exists():
        assert run_job(config(original, "other", seed=8), FAKE) == 0
    name = "data/part-00001.parquet"
    shutil.copyfile(original / "other" / name, run / name)
    code, found = verify()
    assert code == 1
    [fault] = found["faults"]
    assert fault.startswith("part-00001.parquet was written by another run")

    metadata = pq.read_schema(run / "data/part-00002.parquet").metadata
    table = pq.read_table(run / name).replace_schema_metadata(metadata)
    pq.write_table(table, run / name)  # as if it were of the same run
    code, found = verify()
    assert (code, found["faults"]) == (1, [])
    assert found["columns"]["seed"] == 8
    assert found["findings"][0]["what"].startswith("seed is ")


def test_edited_run_json_and_other_settings_are_named(run: Path, verify: Verify) -> None:
    description = json.loads((run / "run.json").read_text())
    description["config"]["seed"] = 8
    (run / "run.json").write_text(json.dumps(description))
    code, found = verify()
    assert code == 1
    assert found["settings"] == ["sampling.seed was 7, is 8"]

    description["fingerprint_keys"]["sampling"]["seed"] = 8
    (run / "run.json").write_text(json.dumps(description))
    code, found = verify()
    assert code == 1
    assert "run.json was edited" in found["faults"][0]


def test_another_checkpoint_is_named(run: Path, verify: Verify, tmp_path: Path) -> None:
    other = Path(shutil.copytree(DEMO / "ckpt-0", tmp_path / "ckpt-0"))
    file = next(path for path in sorted(other.iterdir()) if path.stat().st_size > 1000)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    code, found = verify("--checkpoint", other)
    assert code == 1
    [setting] = found["settings"]
    assert setting.startswith("checkpoint was ")


def test_other_log_probs_of_many_rows_lower_the_match_rate(verify: Verify) -> None:
    def answer(request: Request) -> Completion:
        completion = fakes.answer(request)
        if request.ref.row % 4:
            return completion
        lower = logprobs([value - 0.25 for value in completion.token_logprobs])
        return dataclasses.replace(completion, token_logprobs=lower)

    backend = FakeBackend(draws_plots=False, answer=answer)
    code, found = verify(backend=backend)
    assert (code, found["match_rate"]) == (1, 0.75)
    assert found["largest_logprob_difference"] == pytest.approx(0.25)
    assert verify("--min-match", "0.75", backend=backend)[0] == 0
    assert verify("--tolerance", "0.3", backend=backend)[0] == 0


def test_lines_fit_the_terminal_and_name_the_row(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    edit(run, lambda rows: rows[3].update(text="edited"))
    assert main([str(run), "--sample", "1"], FAKE) == 1
    text = capsys.readouterr().out
    assert "80 computed again, 79 match" in text
    assert "in.parquet#9 (sample 1): text is edited" in text
    assert "column" in text
    assert max(map(len, text.splitlines())) <= 80


def test_run_without_parts_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "data")
    assert main([str(run)], FAKE) == 2
    assert "no part is committed yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give the run folder"),
        (["nothing"], "holds no run"),
        (["nothing", "--sample", "0"], "--sample: expected a share above 0"),
    ],
)
def test_invalid_arguments_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words, FAKE) == 2
    assert message in capsys.readouterr().err


def test_run_below_its_input_folder_is_verified(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(original / "in.parquet", tmp_path / "in.parquet")
    assert run_job(config(tmp_path, "runs/a", input=str(tmp_path), n=1), FAKE) == 0
    capsys.readouterr()
    words = [str(tmp_path / "runs" / "a"), "--sample", "0.5", "--json", "true"]
    assert main(words, FAKE) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["settings"], found["match_rate"], found["rows"]) == ([], 1.0, ROWS / 2)
