import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli.exit_codes import ExitCode
from jobs.evaluation.config import EvaluateConfig
from jobs.evaluation.report import make_report
from pipeline.errors import DatasetError
from pipeline.evals.requests import to_table
from tests.pipeline.evals.own_requests import SCORED

DOCUMENTS = 40
RIGHT = [-2.0, -1.0, -3.0, -4.0]  # of the four choices; the second one is the target
WRONG = [-1.0, -2.0, -3.0, -4.0]


@pytest.fixture
def requests_url(tmp_path: Path) -> str:
    requests = [
        dataclasses.replace(SCORED, id=f"{SCORED.task}/{document}", doc_id=document)
        for document in range(DOCUMENTS)
    ]
    path = tmp_path / "requests.parquet"
    pq.write_table(to_table(requests, [SCORED.task]), path)
    return str(path)


def write_outputs(path: Path, right: int, failed: int = 0) -> str:
    """Writes the output of a run with `right` right answers and `failed` failed rows."""
    rows: list[dict[str, Any]] = []
    for document in range(DOCUMENTS):
        row: dict[str, Any] = {
            "id": f"{SCORED.task}/{document}",
            "sample_index": 0,
            "status": "ok",
            "loglikelihood": RIGHT if document < right else WRONG,
        }
        if document >= DOCUMENTS - failed:
            row |= {"status": "error", "loglikelihood": None, "error_code": "prompt_too_long"}
        rows.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


def test_report_writes_metrics_samples_and_page(
    requests_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = write_outputs(tmp_path / "outputs.parquet", right=30)

    code = make_report(EvaluateConfig(name="v1"), requests_url, [outputs], str(tmp_path / "report"))

    assert code == ExitCode.OK
    assert metrics(tmp_path / "report")["results"][SCORED.task]["acc,none"] == 30 / DOCUMENTS
    samples = pq.read_table(tmp_path / "report" / "samples.parquet")
    assert len(set(samples["id"].to_pylist())) == DOCUMENTS
    page = (tmp_path / "report" / "report.html").read_text()
    assert requests_url in page
    printed = capsys.readouterr().out
    assert f"0.7500 ± 0.0693  ({DOCUMENTS} documents)" in printed
    assert f"metrics  {tmp_path}/report/metrics.json" in printed


def test_report_exits_5_only_for_a_regression_beyond_the_margin(
    requests_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[ExitCode] = []
    for name, right, margin in (("good", 40, 0.01), ("bad", 10, 0.01), ("accepted", 10, 0.9)):
        config = EvaluateConfig(name=name, history=str(tmp_path / "history"), margin=margin)
        outputs = write_outputs(tmp_path / f"{name}.parquet", right)
        codes.append(make_report(config, requests_url, [outputs], str(tmp_path / name)))

    assert codes == [ExitCode.OK, ExitCode.REGRESSION, ExitCode.OK]
    assert "against the last and best run good: REGRESSION" in capsys.readouterr().out


def test_report_counts_failed_rows_as_wrong_and_exits_3(
    requests_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = write_outputs(tmp_path / "outputs.parquet", right=40, failed=4)

    code = make_report(EvaluateConfig(), requests_url, [outputs], str(tmp_path / "report"))

    assert code == ExitCode.ROW_ERRORS
    assert metrics(tmp_path / "report")["results"][SCORED.task]["acc,none"] == 36 / DOCUMENTS
    assert "4 rows failed; their documents count as wrong" in capsys.readouterr().out


def test_report_takes_the_model_from_the_run_folder(requests_url: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_outputs(run / "data" / "part-00000.parquet", right=40)
    description = {"config": {"model": "grok-1", "checkpoint": "ckpt-0"}, "git_commit": "abc123"}
    (run / "run.json").write_text(json.dumps(description))

    make_report(EvaluateConfig(), requests_url, [str(run)], str(tmp_path / "report"))

    page = (tmp_path / "report" / "report.html").read_text()
    assert "grok-1" in page
    assert "abc123" in page


def test_report_marks_changes_of_an_unchanged_run_as_flaky(
    requests_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = EvaluateConfig(history=str(tmp_path / "history"), margin=1.0)
    for number, (dtype, right) in enumerate((("bf16", 40), ("bf16", 38), ("f32", 37))):
        run = tmp_path / f"run{number}"
        write_outputs(run / "data" / "part-00000.parquet", right=right)
        description = {
            "git_commit": "abc123",
            "fingerprint_keys": {"dtype": dtype, "input": [f"requests of run {number}"]},
        }
        (run / "run.json").write_text(json.dumps(description))
        make_report(config, requests_url, [str(run)], str(tmp_path / f"report{number}"))

    [same] = metrics(tmp_path / "report1")["comparisons"]
    assert same["same_setup"]
    others = metrics(tmp_path / "report2")["comparisons"]
    assert [other["same_setup"] for other in others] == [False, False]
    assert "2 flaky documents: the model is the same" in capsys.readouterr().out


def test_report_refuses_outputs_that_lack_a_document(requests_url: str, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs.parquet"
    write_outputs(outputs, right=40)
    pq.write_table(pq.read_table(outputs).slice(1), outputs)

    with pytest.raises(DatasetError, match=f"{SCORED.task}/0"):
        make_report(EvaluateConfig(), requests_url, [str(outputs)], str(tmp_path / "report"))
    assert not (tmp_path / "report").exists()
