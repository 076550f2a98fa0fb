"""Output rows of any run, by id → the answers to requests.

Reads Parquet of the columns of docs/output.md, whoever wrote it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.evals.suite import Answer, EvalRequest
from pipeline.evals.text_match import cut_at_stops
from pipeline.input import formats
from pipeline.storage import StoredObject
from pipeline.storage.redaction import redact_credentials

COLUMNS = (
    "id", "sample_index", "status", "error_code", "error_message", "text", "loglikelihood", "prompt_tokens", "completion_tokens",
    "finish_reason",
)  # fmt: skip
RESULTS = ("text", "loglikelihood")
READ_AT_ONCE = 16
NAMED_IDS = 3
Answers = dict[str, tuple[Answer, ...]]


def list_outputs(urls: Iterable[str]) -> tuple[StoredObject, ...]:
    """Returns the Parquet files below folders, globs and files.

    Raises:
        DatasetError: there is none below one of them.
    """
    found: list[StoredObject] = []
    for url in urls:
        files = [
            stored
            for stored in storage.list_objects(url)
            if stored.url.endswith(formats.PARQUET_SUFFIXES)
        ]
        if not files:
            raise DatasetError(
                f"no Parquet file at {redact_credentials(url)}; --outputs names the output of a run"
            )
        found += files
    return tuple(found)


def read_answers(requests: Sequence[EvalRequest], files: Sequence[StoredObject]) -> Answers:
    """Returns the answers to every request, samples in order.

    Rows of other ids are left out, and so are files without results.

    Raises:
        DatasetError: a request has no answer or one twice, or too few samples, or a file cannot be read.
    """
    wanted = {request.id: request for request in requests}
    found: dict[str, dict[int, Answer]] = defaultdict(dict)
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        for file, rows in zip(files, pool.map(lambda file: _rows(file.url), files), strict=True):
            for row in rows:
                request = wanted.get(str(row["id"]))
                if request is not None:
                    _add(found[request.id], row, request, file.url)
    _check_complete(requests, found)
    return {
        name: tuple(samples[index] for index in sorted(samples)) for name, samples in found.items()
    }


def _rows(url: str) -> list[dict[str, Any]]:
    with formats.open_parquet(url) as parquet:
        names = parquet.schema_arrow.names
        if "id" not in names or not any(name in names for name in RESULTS):
            return []
        return list(_python_rows(parquet.read([name for name in COLUMNS if name in names])))


def _python_rows(table: Any) -> Iterator[dict[str, Any]]:
    columns = {name: formats.python_values(table[name])[0] for name in table.column_names}
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _add(samples: dict[int, Answer], row: dict[str, Any], request: EvalRequest, url: str) -> None:
    index = row.get("sample_index") or 0
    if index in samples:
        raise DatasetError(
            f"{redact_credentials(url)}: id {request.id!r}, sample {index} was there before; "
            "--outputs must name one run"
        )
    samples[index] = _answer(row, request, url)


def _answer(row: dict[str, Any], request: EvalRequest, url: str) -> Answer:
    if row.get("status", "ok") != "ok":
        return Answer(error=f"{row.get('error_code')}: {row.get('error_message')}")
    result = row.get("loglikelihood" if request.choices else "text")
    if result is None:
        expected = "log-likelihoods, one per choice" if request.choices else "a text"
        raise DatasetError(
            f"{redact_credentials(url)}: id {request.id!r} has no result, expected {expected}"
        )
    return Answer(
        text="" if request.choices else cut_at_stops(result, request.stop or ()),
        loglikelihoods=tuple(result if isinstance(result, list) else (result,))
        if request.choices
        else (),
        prompt_tokens=row.get("prompt_tokens"),
        completion_tokens=row.get("completion_tokens"),
        finish_reason=row.get("finish_reason"),
    )


def _check_complete(requests: Sequence[EvalRequest], found: dict[str, dict[int, Answer]]) -> None:
    missing = [request.id for request in requests if request.id not in found]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(requests)} requests have no output row (ids "
            f"{', '.join(missing[:NAMED_IDS])} …): finish the "
            "run, or give all of its output with --outputs"
        )
    for request in requests:
        samples = found[request.id]
        if (
            request.n is not None
            and sorted(samples) != list(range(request.n))
            and not any(map(_failed, samples.values()))
        ):
            raise DatasetError(
                f"id {request.id!r}: expected samples 0 to {request.n - 1}, got {sorted(samples)}; "
                "finish the run"
            )


def _failed(answer: Answer) -> bool:
    """A row that could not run has one output row, whatever number of samples it was to have."""
    return answer.error is not None
