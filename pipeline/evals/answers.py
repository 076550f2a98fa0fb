"""Answers to requests from the output rows of any run, joined by id.

Reads Parquet with the columns of docs/output.md, whatever wrote it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from actors.protocol.plain_text import bare, quoted
from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.evals.suite import Answer, EvalRequest
from pipeline.evals.text_match import cut_at_stops
from pipeline.input import formats
from pipeline.storage import StoredObject

COLUMNS = (
    "id",
    "sample_index",
    "status",
    "error_code",
    "error_message",
    "text",
    "loglikelihood",
    "prompt_tokens",
    "completion_tokens",
    "finish_reason",
)
RESULT_COLUMNS = ("text", "loglikelihood")
PARALLEL_READS = 16
MAX_IDS = 3  # in a message
# of a request without an output row
MISSING = Answer(error="missing: the run has no output row for this request")
Answers = dict[str, tuple[Answer, ...]]
Samples = dict[int, Answer]  # answers to a request, by index of the sample


def list_outputs(urls: Sequence[str], *, allow_missing: bool = False) -> tuple[StoredObject, ...]:
    """Returns the Parquet files below folders, globs and files.

    Args:
        urls: folders, globs and files.
        allow_missing: whether some of them, but not all, may have none.

    Raises:
        DatasetError: there is none below one of them.
    """
    outputs: list[StoredObject] = []
    for url in urls:
        stored = storage.list_objects(url)
        files = [file for file in stored if file.url.endswith(formats.PARQUET_SUFFIXES)]
        if not files and not allow_missing:
            raise _no_file(url)
        outputs += files
    if not outputs:
        raise _no_file(", ".join(urls))
    return tuple(outputs)


def _no_file(url: str) -> DatasetError:
    return DatasetError(f"no Parquet file at {bare(url)}; --outputs names the output of a run")


def read_answers(
    requests: Sequence[EvalRequest],
    files: Sequence[StoredObject],
    *,
    allow_missing: bool = False,
) -> Answers:
    """Returns the answers to every request, samples in order.

    Ignores rows of other ids, and files without results.

    Args:
        requests: all of them.
        files: output of the run.
        allow_missing: whether requests may have no output row; their answer is `MISSING`.

    Raises:
        DatasetError: a request has no answer, one twice, or too few samples, or a file cannot be
            read.
    """
    by_id = {request.id: request for request in requests}
    samples: dict[str, Samples] = defaultdict(dict)
    urls = [file.url for file in files]
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        for url, rows in zip(urls, pool.map(_read_rows, urls), strict=True):
            for row in rows:
                request = by_id.get(str(row["id"]))
                if request is not None:
                    _add(samples[request.id], row, request, url)

    if allow_missing:
        for request in requests:
            if request.id not in samples:
                samples[request.id] = {0: MISSING}
    _check_complete(requests, samples)
    answers: Answers = {}
    for request_id, by_index in samples.items():
        answers[request_id] = tuple(by_index[index] for index in sorted(by_index))
    return answers


def has_failed(answers: Iterable[Answer]) -> bool:
    """Returns whether one of the answers to a request is an error."""
    return any(answer.error is not None for answer in answers)


def _read_rows(url: str) -> list[dict[str, Any]]:
    with formats.open_parquet(url) as parquet:
        names = parquet.schema_arrow.names
        has_results = not frozenset(RESULT_COLUMNS).isdisjoint(names)
        if "id" not in names or not has_results:
            return []
        table = parquet.read([name for name in COLUMNS if name in names])
    return list(_python_rows(table))


def _python_rows(table: Any) -> Iterator[dict[str, Any]]:
    names = table.column_names
    columns = [formats.python_values(table[name])[0] for name in names]
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def _add(samples: Samples, row: dict[str, Any], request: EvalRequest, url: str) -> None:
    index = row.get("sample_index") or 0
    if index in samples:
        raise DatasetError(
            f"{bare(url)}: id {quoted(request.id)}, sample {index} was there before; "
            "--outputs must name one run"
        )
    samples[index] = _answer(row, request, url)


def _answer(row: dict[str, Any], request: EvalRequest, url: str) -> Answer:
    if row.get("status", "ok") != "ok":
        return Answer(error=f"{row.get('error_code')}: {row.get('error_message')}")

    text = ""
    loglikelihoods: tuple[float, ...] = ()
    if request.choices:
        result = row.get("loglikelihood")
        expected = "log-likelihoods, one per choice"
    else:
        result = row.get("text")
        expected = "a text"
    if result is None:
        raise DatasetError(
            f"{bare(url)}: id {quoted(request.id)} has no result, expected {expected}"
        )
    if not request.choices:
        text = cut_at_stops(result, request.stop or ())
    elif isinstance(result, list):
        loglikelihoods = tuple(result)
    else:
        loglikelihoods = (result,)
    return Answer(
        text=text,
        loglikelihoods=loglikelihoods,
        prompt_tokens=row.get("prompt_tokens"),
        completion_tokens=row.get("completion_tokens"),
        finish_reason=row.get("finish_reason"),
    )


def _check_complete(requests: Sequence[EvalRequest], samples: dict[str, Samples]) -> None:
    missing = [request.id for request in requests if request.id not in samples]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(requests)} requests have no output row (ids "
            f"{', '.join(missing[:MAX_IDS])} …): finish the "
            "run, give all of its output with --outputs, or count them as wrong with "
            "--allow-missing true"
        )
    for request in requests:
        _check_samples(request, samples[request.id])


def _check_samples(request: EvalRequest, samples: Samples) -> None:
    # a row that could not run has one output row for all of its samples
    if request.n is None or has_failed(samples.values()):
        return
    if sorted(samples) != list(range(request.n)):
        raise DatasetError(
            f"id {quoted(request.id)}: expected samples 0 to {request.n - 1}, got "
            f"{sorted(samples)}; "
            "finish the run"
        )
