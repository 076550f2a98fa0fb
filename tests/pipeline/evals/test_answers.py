from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DatasetError
from pipeline.evals.answers import list_outputs, read_answers
from pipeline.evals.scoring import score
from pipeline.evals.suite import Answer
from tests.pipeline.evals.own_requests import REQUESTS

LL = [-2.0, -1.0, -3.0, -4.0]


def outputs(path: Path, rows: list[dict[str, Any]]) -> Any:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return list_outputs([str(path)])


def test_answers_are_joined_by_id_with_samples_in_order(tmp_path: Path) -> None:
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


def test_failed_row_is_wrong_for_all_its_samples(tmp_path: Path) -> None:
    failed = [
        {
            "id": request.id,
            "status": "error",
            "error_code": "prompt_too_long",
            "error_message": "m",
            "text": None,
        }
        for request in REQUESTS
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


def test_folder_without_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no Parquet file at"):
        list_outputs([str(tmp_path)])
