"""Shards -> `PromptRow`s in input order, one shard's columns in memory at a time.

It knows no tokens and no output.

A row whose bytes cannot be read (invalid UTF-8, a line that is not JSON, a number where text
belongs) becomes an error `Completion` and rides the same stream; its neighbours are unaffected.
Nulls are handed on: the tokenizer judges them.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from actors.protocol.errors import InvalidPromptError
from actors.protocol.messages import Completion, RowRef
from pipeline import storage
from pipeline.errors import DatasetError, OutageError
from pipeline.input import formats
from pipeline.input.columns import PROMPT_IDS, InputColumns, InputSchema, inspect_columns
from pipeline.input.unique_ids import check_unique_ids
from pipeline.records import PromptRow, Shard, ShardNotice, ShardOpened, UnreadableShard
from pipeline.storage.redaction import redact_credentials

__all__ = ["InputColumns", "InputSchema", "check_unique_ids", "inspect_columns", "read_rows"]


def read_rows(
    shards: Iterable[Shard],
    schema: InputSchema,
    client: storage.Client = storage.DEFAULT_CLIENT,
) -> Iterator[PromptRow | Completion | ShardNotice]:
    """Reads the rows of `shards`, in their order.

    Each file is opened once, and rows between its shards are skipped.

    A `ShardOpened` precedes the rows of each shard: its table has the columns `schema.passthrough`
    and one row per row of the shard, in input order; for a shard with `only`, one per row named
    there, ascending. `RowRef.row` counts within the shard, whether `only` is set or not.

    In place of a shard that cannot be read (its file has vanished, is damaged or has changed) comes
    an `UnreadableShard`; the other shards are read. An outage of the storage is not the fault of a
    file, and raises.

    Raises:
        OutageError: storage does not answer.
    """
    for _, in_file in groupby(shards, key=lambda shard: shard.url):
        queue = _Queue(deque(sorted(in_file, key=lambda shard: shard.first_row)))
        while queue.left:
            try:
                yield from _file_rows(queue, schema, client)
            except DatasetError as error:
                if not queue.reading or isinstance(error, OutageError):
                    raise
                yield UnreadableShard(queue.left.popleft(), error)


@dataclass(slots=True)
class _Queue:
    """Shards of one file that are still to be read, and whether the first of them is being read right now."""

    left: deque[Shard]
    reading: bool = True


def _file_rows(
    queue: _Queue, schema: InputSchema, client: storage.Client
) -> Iterator[ShardOpened | PromptRow | Completion]:
    """Reads shards of one file, and takes each from the queue when all of it is decoded."""
    queue.reading, first = True, queue.left[0]
    with formats.open_cursor(
        first.url, schema.inputs, schema.source, first.version, client
    ) as cursor:
        while queue.left:
            queue.reading, shard = True, queue.left[0]
            rows = cursor.take(shard.first_row, shard.rows)
            queue.left.popleft()
            queue.reading = False
            numbers = range(shard.rows) if shard.only is None else sorted(shard.only)
            yield ShardOpened(shard, _passthrough(shard, rows, schema, numbers))
            yield from _prompt_rows(shard, rows, schema, numbers)


def _passthrough(
    shard: Shard, rows: formats.Rows, schema: InputSchema, numbers: Iterable[int]
) -> pa.Table:
    columns: list[Any] = list(rows.passthrough.columns)
    if schema.id_column is None:
        names = [schema.row_name(shard.url, shard.first_row + row) for row in range(shard.rows)]
        columns.insert(0, pa.array(names, pa.string()))
    table = pa.table(columns, schema=schema.passthrough)
    return table if shard.only is None else table.take(np.fromiter(numbers, np.int64))


def _prompt_rows(
    shard: Shard, rows: formats.Rows, schema: InputSchema, numbers: Iterable[int]
) -> Iterator[PromptRow | Completion]:
    prompts = rows.values[schema.prompt]
    prompt_field = PROMPT_IDS if schema.prompt == PROMPT_IDS else "prompt"
    for row in numbers:
        ref = RowRef(shard.number, row)
        fault = rows.faults.get(row) or _text_fault(rows, schema.texts, row)
        if fault is not None:
            message = redact_credentials(f"row {shard.first_row + row} of {shard.url}: {fault}")
            row_id = _readable_id(shard, rows, schema, row)
            yield Completion.failed(ref, InvalidPromptError.code, message, row_id=row_id)
            continue
        values: dict[str, Any] = {prompt_field: prompts[row]}
        if schema.continuation is not None and schema.continuation_kind is not None:
            values[schema.continuation_kind] = rows.values[schema.continuation][row]
        if schema.parameters:
            values["parameters"] = _parameters(rows, schema, row)
        yield PromptRow(ref=ref, id=_row_id(shard, rows, schema, row), **values)


def _parameters(rows: formats.Rows, schema: InputSchema, row: int) -> dict[str, object]:
    """Returns the sampling parameters that the row sets: those that are not null."""
    parameters: dict[str, object] = {}
    for name in schema.parameters:
        value = rows.values[name][row]
        if value is not None:
            parameters[name] = value
    return parameters


def _row_id(shard: Shard, rows: formats.Rows, schema: InputSchema, row: int) -> str | int:
    if schema.id_column is None:
        return schema.row_name(shard.url, shard.first_row + row)
    value: str | int = rows.values[schema.id_column][row]
    return value


def _readable_id(
    shard: Shard, rows: formats.Rows, schema: InputSchema, row: int
) -> str | int | None:
    """Returns the id of a row that cannot be used; None where the id itself is no id."""
    row_id: object = _row_id(shard, rows, schema, row)
    if isinstance(row_id, str):
        return row_id if _writable(row_id) else None
    return row_id if isinstance(row_id, int) else None


def _text_fault(rows: formats.Rows, names: tuple[str, ...], row: int) -> str | None:
    """Only JSON lines can hold anything but text in a text column, or text that UTF-8 cannot write (a lone surrogate)."""
    for name in names:
        value = rows.values[name][row]
        if value is not None and not isinstance(value, str):
            return f"column '{name}' is {type(value).__name__}, expected a string"
        if value is not None and not value.isascii() and not _writable(value):
            return f"column '{name}' is not valid Unicode"
    return None


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
