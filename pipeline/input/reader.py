"""The read stage: shards → rows in input order, with the columns of one shard in memory.

A row whose bytes cannot be read (invalid UTF-8, a line that is not JSON) becomes an error
`Completion` in the same stream; the rows beside it are unaffected. Values are not validated here:
the tokenize stage does that.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from actors.protocol.errors import InvalidPromptError, RequestError
from actors.protocol.messages import Completion, RowRef
from actors.protocol.plain_text import is_unicode
from pipeline import storage
from pipeline.errors import DatasetError, OutageError
from pipeline.input import formats
from pipeline.input.columns import PROMPT, InputSchema
from pipeline.input.limits import choices_fault
from pipeline.records import (
    DIGEST_BYTES,
    PromptRow,
    Shard,
    ShardNotice,
    ShardOpened,
    UnreadableShard,
)
from pipeline.storage.redaction import redact_credentials
from pipeline.templates.row_template import RowTemplateError


def read_rows(
    shards: Iterable[Shard],
    schema: InputSchema,
    client: storage.Client = storage.DEFAULT_CLIENT,
) -> Iterator[PromptRow | Completion | ShardNotice]:
    """Reads the rows of `shards`, in their order.

    Each file is opened once, and rows between its shards are skipped.

    A `ShardOpened` precedes the rows of each shard: its table has the columns `schema.passthrough`
    and one row per row of the shard, in input order; for a shard with `only`, one per row named
    there, ascending, unless all others are copied. `RowRef.row` counts within the shard, whether
    `only` is set or not.

    An `UnreadableShard` takes the place of a shard that cannot be read because its file has
    vanished, is damaged or has changed; the other shards are read. An outage of the storage raises.

    Raises:
        OutageError: storage does not answer.
    """
    for _, shards_of_file in groupby(shards, key=lambda shard: shard.url):
        pending = _PendingShards(deque(sorted(shards_of_file, key=lambda shard: shard.first_row)))
        while pending.shards:
            try:
                yield from _file_rows(pending, schema, client)
            except DatasetError as error:
                if not pending.is_reading or isinstance(error, OutageError):
                    raise
                yield UnreadableShard(pending.shards.popleft(), error)


@dataclass(slots=True)
class _PendingShards:
    """Shards of one file that are not read yet."""

    shards: deque[Shard]
    # Whether the first of them is being read: an error is its own. Otherwise the consumer raised.
    is_reading: bool = True


def _file_rows(
    pending: _PendingShards, schema: InputSchema, client: storage.Client
) -> Iterator[ShardOpened | PromptRow | Completion]:
    """Reads the pending shards; removes each of them when all of it is decoded."""
    pending.is_reading = True
    first = pending.shards[0]
    source = formats.SourceFile(first.url, first.version, first.size)
    with formats.open_cursor(
        source,
        schema.inputs,
        schema.source,
        partition=schema.folder_values(first),
        client=client,
    ) as cursor:
        while pending.shards:
            pending.is_reading = True
            shard = pending.shards[0]
            rows = _rows(shard, cursor)
            pending.shards.popleft()
            pending.is_reading = False

            positions = _positions(shard)
            prompts = _rendered_prompts(rows, schema, positions)
            passthrough = _passthrough(shard, rows, schema, positions, prompts)
            digests = bytearray(DIGEST_BYTES * shard.rows)
            yield ShardOpened(shard, passthrough, digests)
            yield from _prompt_rows(shard, rows, schema, positions, prompts)


def _rows(shard: Shard, cursor: formats.Cursor) -> formats.Rows:
    """Reads the rows of a shard, of a sample in several ranges."""
    ranges = list(shard.ranges())
    first = cursor.take(ranges[0].start, len(ranges[0]))
    if len(ranges) == 1:
        return first

    values = first.values
    tables = [first.passthrough]
    faults = dict(first.faults)
    count = len(ranges[0])
    for file_range in ranges[1:]:
        rows = cursor.take(file_range.start, len(file_range))
        for name, column_values in rows.values.items():
            values[name] += column_values
        tables.append(rows.passthrough)
        for position, fault in rows.faults.items():
            faults[count + position] = fault
        count += len(file_range)
    return formats.Rows(values, pa.concat_tables(tables), faults)


def _positions(shard: Shard) -> Sequence[int]:
    """Returns the rows of the shard that are run, counted within it."""
    if shard.only is None:
        return range(shard.rows)
    return sorted(shard.only)


def _rendered_prompts(
    rows: formats.Rows, schema: InputSchema, positions: Sequence[int]
) -> dict[int, str | RequestError]:
    """Returns the prompt that the template gives each row, or why it gives none, by position.

    Empty without a template. Rows with a fault are left out.
    """
    prompts: dict[int, str | RequestError] = {}
    template = schema.template
    if template is None:
        return prompts
    for position in positions:
        if position in rows.faults:
            continue
        values = {name: rows.values[name][position] for name in schema.template_columns}
        try:
            prompts[position] = template.render(values, {})
        except RowTemplateError as error:
            prompts[position] = InvalidPromptError(f"--template: {error.detail}")
    return prompts


def _passthrough(
    shard: Shard,
    rows: formats.Rows,
    schema: InputSchema,
    positions: Sequence[int],
    prompts: Mapping[int, str | RequestError],
) -> pa.Table:
    columns: list[Any] = list(rows.passthrough.columns)
    if schema.id_column is None:
        names = [schema.row_name(shard.url, shard.file_row(row)) for row in range(shard.rows)]
        columns.insert(0, pa.array(names, pa.string()))
    if schema.writes_rendered_prompt:
        texts = [_text_or_none(prompts.get(position)) for position in range(shard.rows)]
        columns.insert(1, pa.array(texts, pa.string()))
    table = pa.table(columns, schema=schema.passthrough)
    if shard.only is None or shard.copied is not None:
        return table
    return table.take(np.array(positions, np.int64))


def _text_or_none(prompt: str | RequestError | None) -> str | None:
    if isinstance(prompt, str):
        return prompt
    return None


def _prompt_rows(
    shard: Shard,
    rows: formats.Rows,
    schema: InputSchema,
    positions: Sequence[int],
    prompts: Mapping[int, str | RequestError],
) -> Iterator[PromptRow | Completion]:
    for position in positions:
        ref = RowRef(shard.number, position)
        if position in rows.faults:
            location = f"row {shard.file_row(position)} of {shard.url}"
            message = redact_credentials(f"{location}: {rows.faults[position]}")
            row_id = _readable_id(shard, rows, schema, position)
            yield Completion.failed(ref, InvalidPromptError.code, message, row_id=row_id)
            continue

        values: dict[str, Any] = {}
        if position in prompts:
            prompt = prompts[position]
            if isinstance(prompt, RequestError):
                row_id = _readable_id(shard, rows, schema, position)
                yield Completion.failed(ref, prompt.code, str(prompt), row_id=row_id)
                continue
            values[PROMPT] = prompt
        for column in schema.role_columns:
            values[column.form.name] = rows.values[column.name][position]
        if schema.has_choices:
            fault = _choices_fault(values)
            if fault is not None:
                row_id = _readable_id(shard, rows, schema, position)
                yield Completion.failed(ref, InvalidPromptError.code, fault, row_id=row_id)
                continue
        if schema.parameters:
            values["parameters"] = _parameters(rows, schema, position)
        yield PromptRow(ref=ref, id=_row_id(shard, rows, schema, position), **values)


def _choices_fault(values: dict[str, Any]) -> str | None:
    """Returns why the choices of a row are too many or too long; None if they are not."""
    prompt = values.get("prompt")
    return choices_fault(prompt, values.get("choices") or values.get("choices_token_ids"))


def _parameters(rows: formats.Rows, schema: InputSchema, position: int) -> dict[str, object]:
    """Returns the sampling parameters that the row sets: those that are not null."""
    parameters: dict[str, object] = {}
    for name in schema.parameters:
        value = rows.values[name][position]
        if value is not None:
            parameters[name] = value
    return parameters


def _row_id(shard: Shard, rows: formats.Rows, schema: InputSchema, position: int) -> str | int:
    if schema.id_column is None:
        return schema.row_name(shard.url, shard.file_row(position))
    row_id: str | int = rows.values[schema.id_column][position]
    return row_id


def _readable_id(
    shard: Shard, rows: formats.Rows, schema: InputSchema, position: int
) -> str | int | None:
    """Returns the id of a row that cannot be read; None where the id is not valid either."""
    row_id: object = _row_id(shard, rows, schema, position)
    if isinstance(row_id, str) and is_unicode(row_id):
        return row_id
    if isinstance(row_id, int):
        return row_id
    return None
