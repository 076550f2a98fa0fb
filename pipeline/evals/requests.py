"""Request rows of tasks, and their form in Parquet.

One file holds the rows of all tasks. A run of the main job has one task, so that `parts` splits
them: rows with choices are scored, the others are completed.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from actors.protocol.plain_text import bare, quoted
from pipeline.errors import ConfigError, DatasetError
from pipeline.evals import tables
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.suite import EvalRequest, PromptOptions, task_names
from pipeline.evals.tasks import suite_of
from pipeline.input import formats

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
REQUESTED_KEY = b"tasks"  # of the schema metadata
SAMPLING = ("stop", "max_tokens", "temperature", "n")
JobTask = Literal["score", "generate"]  # of the main job


def build_requests(
    names: Iterable[str], data: DataFolder, options: PromptOptions
) -> list[EvalRequest]:
    """Returns the requests of tasks and groups, each task once, in the order of their names.

    Of a group, the tasks that the data set holds.

    Raises:
        ConfigError: no names, or an unknown one.
        DatasetError: a data set is missing or damaged, or has no row of a requested task or group.
    """
    requests: list[EvalRequest] = []
    done: set[str] = set()
    for name in names:
        suite = suite_of(name)
        present = [task for task in suite.members(name) if suite.has_task(data, task)]
        if not present:
            raise DatasetError(f"the data set at {bare(data.url)} holds no row of {name}")
        for task in present:
            if task not in done:
                requests.extend(suite.prompts(data, task, options))
                done.add(task)
    if not done:
        raise ConfigError("--tasks: expected at least one task, got none")
    return requests


def to_table(requests: Sequence[EvalRequest], requested: Iterable[str] = ()) -> pa.Table:
    """Returns the requests as a table of `SCHEMA`.

    Args:
        requests: in the order of the rows.
        requested: names of the requested tasks and groups, for the metadata of the schema.
    """
    metadata = {REQUESTED_KEY: ",".join(requested).encode()}
    return tables.to_table(requests, SCHEMA.with_metadata(metadata))


def read_requests(url: str) -> tuple[EvalRequest, ...]:
    """Returns the requests of a Parquet file.

    Raises:
        DatasetError: the file cannot be read, lacks columns, or holds an id twice or no row.
    """
    with formats.open_parquet(url) as parquet:
        table = parquet.read()
    present = [name for name in SCHEMA.names if name in table.column_names]
    missing = [name for name in SCHEMA.names if name not in (*present, *SAMPLING)]
    if missing:
        raise DatasetError(
            f"{bare(url)}: expected the rows that `evaluate.py prompts` writes, "
            f"columns {missing} are missing"
        )
    requests = tuple(map(_request, table.select(present).to_pylist()))
    if not requests:
        raise DatasetError(f"{bare(url)} has no row; nothing is to be evaluated")
    ids: set[str] = set()
    for request in requests:
        if request.id in ids:
            raise DatasetError(
                f"{bare(url)}: id {quoted(request.id)} comes twice; answers are joined by id"
            )
        ids.add(request.id)
    return requests


def requested_names(url: str, requests: Iterable[EvalRequest]) -> tuple[str, ...]:
    """Returns the tasks and groups that the requests of a file were built for.

    The widest group of each task, or the task, if the file does not name them.
    """
    with formats.open_parquet(url) as parquet:
        metadata = parquet.schema_arrow.metadata or {}
    requested = metadata.get(REQUESTED_KEY, b"").decode()
    if requested:
        return tuple(requested.split(","))

    names: dict[str, None] = {}  # a set that keeps its order
    for task in task_names(requests):
        groups = suite_of(task).groups
        name = groups[-1].name if groups else task
        names[name] = None
    return tuple(names)


def _request(row: dict[str, object]) -> EvalRequest:
    fields: dict[str, Any] = {}  # of the types that the file's schema has
    for name, value in row.items():
        fields[name] = tuple(value) if isinstance(value, list) else value
    return EvalRequest(**fields)


def parts(table: pa.Table) -> dict[JobTask, pa.Table]:
    """Returns the rows by the task of the main job that runs them, with the columns that it needs.

    A task without rows is absent.
    """
    is_scored = pc.is_valid(table["choices"])
    by_job_task: dict[JobTask, pa.Table] = {}

    scored = table.filter(is_scored)
    if scored.num_rows:
        by_job_task["score"] = scored.drop_columns(list(SAMPLING))

    completed = table.filter(pc.invert(is_scored))
    if completed.num_rows:
        by_job_task["generate"] = completed.drop_columns(["choices"])
    return by_job_task
