"""Request rows to Parquet and back, output rows to answers."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DatasetError
from pipeline.evals.answers import list_outputs, read_answers
from pipeline.evals.requests import parts, read_requests, to_table
from pipeline.evals.scoring import executed, score
from pipeline.evals.suite import Answer, EvalRequest
from pipeline.input.columns import InputColumns, inspect_columns
from pipeline.output.publication import to_parquet
from pipeline.records import InputFile
from pipeline.tasks import TASKS

SCORED = EvalRequest(
    "mmlu_anatomy/0", "mmlu_anatomy", 0, "q", " B", choices=(" A", " B", " C", " D")
)
COMPLETED = EvalRequest(
    "gsm8k/0", "gsm8k", 0, "q", "#### 4", stop=("Question:",), max_tokens=9, temperature=0.0, n=1
)
SAMPLED = EvalRequest(
    "humaneval/0",
    "humaneval",
    0,
    "def f():",
    "check(f)",
    stop=("\ndef",),
    max_tokens=9,
    temperature=1.0,
    n=2,
)
REQUESTS = (SCORED, COMPLETED, SAMPLED)
LL = [-2.0, -1.0, -3.0, -4.0]


def test_requests_survive_parquet_and_equal_tables_are_equal_bytes(tmp_path: Path) -> None:
    file = tmp_path / "requests.parquet"
    file.write_bytes(to_parquet(to_table(REQUESTS)))
    assert read_requests(str(file)) == REQUESTS
    assert to_parquet(to_table(read_requests(str(file)))) == file.read_bytes()


def test_requests_that_are_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "requests.parquet"
    for requests, message in (
        ((), "has no row"),
        ((SCORED, SCORED), "'mmlu_anatomy/0' comes twice"),
    ):
        file.write_bytes(to_parquet(to_table(requests)))
        with pytest.raises(DatasetError, match=message):
            read_requests(str(file))
    pq.write_table(pa.table({"id": ["a"]}), file)
    with pytest.raises(DatasetError, match=r"columns .*'task'.* are missing"):
        read_requests(str(file))


def test_the_main_job_takes_both_parts(tmp_path: Path) -> None:
    for kind, table in parts(to_table(REQUESTS)).items():
        file = tmp_path / f"{kind}.parquet"
        pq.write_table(table, file)
        schema = inspect_columns(
            [InputFile(str(file), 1, "", table.num_rows)], InputColumns(TASKS[kind])
        )
        assert schema.passthrough.names == ["id", "task", "doc_id", "target"]
        assert schema.has_choices == (kind == "score")
    assert schema.parameters == ("max_tokens", "temperature", "stop", "n")
    assert list(parts(to_table([SCORED]))) == ["score"]


def outputs(path: Path, rows: list[dict[str, Any]]) -> Any:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return list_outputs([str(path)])


def test_answers_are_joined_by_id_and_samples_are_in_order(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "id": "humaneval/0",
            "sample_index": 1,
            "status": "ok",
            "text": " two",
            "completion_tokens": None,
        },
        {
            "id": "gsm8k/0",
            "sample_index": 0,
            "status": "ok",
            "text": " 4 Question: 5",
            "completion_tokens": 7,
        },
        {"id": "humaneval/0", "sample_index": 0, "status": "ok", "text": " one"},
        {"id": "another/0", "sample_index": 0, "status": "ok", "text": " x"},
    ]
    outputs(tmp_path / "generate.parquet", rows)
    outputs(tmp_path / "score.parquet", [{"id": "mmlu_anatomy/0", "loglikelihood": LL}])
    outputs(tmp_path / "requests.parquet", [{"id": "mmlu_anatomy/0", "prompt": "no result here"}])
    answers = read_answers(REQUESTS, list_outputs([str(tmp_path)]))
    assert answers["mmlu_anatomy/0"] == (Answer(loglikelihoods=tuple(LL)),)
    assert answers["gsm8k/0"] == (Answer(text=" 4 ", completion_tokens=7),)
    assert [answer.text for answer in answers["humaneval/0"]] == [" one", " two"]
    assert set(answers) == {request.id for request in REQUESTS}


def test_a_failed_row_counts_as_wrong_and_stands_for_all_its_samples(tmp_path: Path) -> None:
    failed = [
        {
            "id": each.id,
            "status": "error",
            "error_code": "prompt_too_long",
            "error_message": "m",
            "text": None,
        }
        for each in REQUESTS
    ]
    answers = read_answers(REQUESTS, outputs(tmp_path / "o.parquet", failed))
    assert answers["gsm8k/0"] == (Answer(error="prompt_too_long: m"),)
    assert {sample.value for sample in score(REQUESTS, answers)} == {0.0}


OK = [
    {"id": "mmlu_anatomy/0", "sample_index": 0, "loglikelihood": LL, "text": None},
    {"id": "gsm8k/0", "sample_index": 0, "loglikelihood": None, "text": "4"},
    {"id": "humaneval/0", "sample_index": 0, "loglikelihood": None, "text": "a"},
    {"id": "humaneval/0", "sample_index": 1, "loglikelihood": None, "text": "b"},
]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (OK[1:], r"1 of 3 requests have no output row \(ids mmlu_anatomy/0"),
        (OK[:3], r"'humaneval/0': expected samples 0 to 1, got \[0\]"),
        ([*OK, OK[1]], "'gsm8k/0', sample 0 was there before"),
        (
            [OK[0] | {"loglikelihood": None}, *OK[1:]],
            "'mmlu_anatomy/0' has no result, expected log-likelihoods",
        ),
        ([OK[0], OK[1] | {"text": None}, *OK[2:]], "'gsm8k/0' has no result, expected a text"),
    ],
)
def test_incomplete_outputs_are_refused(
    rows: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    assert len(read_answers(REQUESTS, outputs(tmp_path / "ok.parquet", OK))) == 3
    with pytest.raises(DatasetError, match=message):
        read_answers(REQUESTS, outputs(tmp_path / "bad.parquet", rows))


def test_no_outputs_at_all(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no Parquet file at"):
        list_outputs([str(tmp_path)])


def test_programs_are_executed_where_the_metric_asks_for_it(tmp_path: Path) -> None:
    answers = read_answers(REQUESTS, outputs(tmp_path / "o.parquet", OK))
    given: list[str] = []

    def execute(programs: Any) -> list[bool]:
        given.extend(programs)
        return [program.startswith("def f():a") for program in programs]

    judged = executed(REQUESTS, answers, execute)
    assert given == ["def f():a\ncheck(f)", "def f():b\ncheck(f)"]
    assert [answer.passed for answer in judged["humaneval/0"]] == [True, False]
    assert judged["gsm8k/0"] == answers["gsm8k/0"]
    assert {sample.metric: sample.value for sample in score([SAMPLED], judged)} == {
        "pass@1,create_test": 0.5
    }
    assert score([SAMPLED], answers) == []
