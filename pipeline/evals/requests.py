"""Names of tasks and a data folder → request rows; request rows ↔ Parquet. Knows no outputs.

One file holds the rows of all tasks. A run of the main job does one thing, so that `parts` splits
them: rows with choices are scored, the others are completed.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import pyarrow as pa

from pipeline.errors import ConfigError, DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.suite import EvalRequest, PromptOptions
from pipeline.evals.tasks import suite_of
from pipeline.input import formats
from pipeline.storage.redaction import redact_credentials

FIELDS: tuple[tuple[str, pa.DataType], ...] = (
    ("id", pa.string()),
    ("task", pa.string()),
    ("doc_id", pa.int64()),
    ("prompt", pa.string()),
    ("choices", pa.list_(pa.string())),
    ("target", pa.string()),
    ("stop", pa.list_(pa.string())),
    ("max_tokens", pa.int32()),
    ("temperature", pa.float64()),
    ("n", pa.int32()),
)
SCHEMA = pa.schema(FIELDS)
ASKED_KEY = b"tasks"
SAMPLING = ("stop", "max_tokens", "temperature", "n")
Kind = Literal["score", "generate"]


def build_requests(
    names: Iterable[str], data: DataFolder, options: PromptOptions
) -> list[EvalRequest]:
    """Returns the requests of tasks and groups, each task once, in the order in which they are named.

    Of a group, the tasks that the data set holds.

    Raises:
        ConfigError: no names, or an unknown one.
        DatasetError: a data set is missing or damaged, or holds nothing of what is asked for.
    """
    requests: list[EvalRequest] = []
    done: set[str] = set()
    for name in names:
        suite = suite_of(name)
        present = [task for task in suite.members(name) if suite.has_task(data, task)]
        if not present:
            raise DatasetError(
                f"the data set at {redact_credentials(data.url)} holds no row of {name}"
            )
        for task in present:
            if task not in done:
                requests.extend(suite.prompts(data, task, options))
                done.add(task)
    if not done:
        raise ConfigError("--tasks: expected at least one task, got none")
    return requests


def to_table(requests: Sequence[EvalRequest], asked: Iterable[str] = ()) -> pa.Table:
    """Returns the requests as a table of `SCHEMA`, whose metadata tell what was asked for by name."""
    columns = {name: [getattr(request, name) for request in requests] for name in SCHEMA.names}
    told = {ASKED_KEY: ",".join(asked).encode()}
    return pa.table(
        {name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()},
        schema=SCHEMA.with_metadata(told),
    )


def read_requests(url: str) -> tuple[EvalRequest, ...]:
    """Returns the requests of a Parquet file.

    Raises:
        DatasetError: the file cannot be read, lacks columns, or holds an id twice or no row.
    """
    with formats.open_parquet(url) as parquet:
        table = parquet.read()
    shown = redact_credentials(url)
    missing = [
        name for name in SCHEMA.names if name not in table.column_names and name not in SAMPLING
    ]
    if missing:
        raise DatasetError(
            f"{shown}: expected the rows that `evaluate.py prompts` writes, columns {missing} are "
            "missing"
        )
    known = [name for name in SCHEMA.names if name in table.column_names]
    requests = tuple(_request(row) for row in table.select(known).to_pylist())
    if not requests:
        raise DatasetError(f"{shown} has no row; nothing is to be evaluated")
    seen: set[str] = set()
    for request in requests:
        if request.id in seen:
            raise DatasetError(f"{shown}: id {request.id!r} comes twice; answers are joined by id")
        seen.add(request.id)
    return requests


def asked_names(url: str, requests: Iterable[EvalRequest]) -> tuple[str, ...]:
    """Returns the tasks and groups that the requests of a file were built for.

    If it does not say, the widest that they make.
    """
    with formats.open_parquet(url) as parquet:
        told = (parquet.schema_arrow.metadata or {}).get(ASKED_KEY, b"").decode()
    if told:
        return tuple(told.split(","))
    suites = {request.task: suite_of(request.task) for request in requests}
    return tuple(
        dict.fromkeys(
            suite.groups[-1].name if suite.groups else task for task, suite in suites.items()
        )
    )


def _request(row: dict[str, object]) -> EvalRequest:
    fields: dict[str, Any] = {}  # of the types that the file's schema has
    for name, value in row.items():
        fields[name] = tuple(value) if isinstance(value, list) else value
    return EvalRequest(**fields)


def parts(table: pa.Table) -> dict[Kind, pa.Table]:
    """Returns the rows by what a run does with them, each with the columns that it needs.

    A kind without rows is absent.
    """
    scored = [choices is not None for choices in table["choices"].to_pylist()]
    split = {
        "score": table.filter(pa.array(scored)).drop_columns(list(SAMPLING)),
        "generate": table.filter(pa.array([not each for each in scored])).drop_columns(["choices"]),
    }
    kinds: tuple[Kind, Kind] = ("score", "generate")
    return {kind: split[kind] for kind in kinds if split[kind].num_rows}
