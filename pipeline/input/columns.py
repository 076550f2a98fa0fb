"""Input files and the run's column names -> `InputSchema`: what is read, what passes through.

Reads footers only (Parquet).

prompt | prompt_token_ids                          exactly one
continuation | choices | their ..._token_ids       exactly one, task score only; otherwise ordinary columns
max_tokens temperature top_p … (sampling)          per-row parameters, read by every task, not passed through
id                                                 passes through as `id`; `<file>#<row>` where the input has none
every other column                                 passes through unchanged
"""

import posixpath
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
from pyarrow import types

from actors.protocol.parameters import ColumnType
from actors.protocol.sampling import PARAMETERS
from pipeline.errors import DatasetError
from pipeline.input import formats
from pipeline.input.json_types import JSON_TEXT, JsonColumns
from pipeline.output.schema import Task, task_columns
from pipeline.records import InputFile
from pipeline.storage.redaction import redact_credentials

FOOTERS_AT_ONCE = 16
PROMPT_IDS = "prompt_token_ids"
CONTINUATIONS = ("continuation", "continuation_token_ids", "choices", "choices_token_ids")


@dataclass(frozen=True, slots=True)
class InputColumns:
    """What the run calls its columns, and what it does with them."""

    task: Task
    prompt_column: str = "prompt"
    id_column: str = "id"
    continuation_column: str = "continuation"


@dataclass(frozen=True, slots=True)
class InputSchema:
    """What every file of the input has, decided once before anything starts."""

    columns: InputColumns
    root: str  # the folder that `<file>` in `<file>#<row>` is relative to
    prompt: str  # the column that holds the prompt, as text or ids
    continuation: str | None  # the column that holds what is scored, for task score
    parameters: tuple[str, ...]  # those of PARAMETERS that the input has
    id_column: str | None  # None: ids are made from file and row
    passthrough: pa.Schema  # `id` first
    json: bool

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns that are read as Python values."""
        named = [self.id_column, self.prompt, self.continuation, *self.parameters]
        return tuple(name for name in named if name is not None)

    @property
    def texts(self) -> tuple[str, ...]:
        """Of `inputs`, those whose values are text."""
        prompt = () if self.prompt == PROMPT_IDS else (self.prompt,)
        return (
            (*prompt, self.continuation)
            if self.continuation and self.continuation_kind == "continuation"
            else prompt
        )

    @property
    def continuation_kind(self) -> str | None:
        """Which of CONTINUATIONS the column `continuation` is, whatever it is called."""
        if self.continuation in CONTINUATIONS[1:]:
            return self.continuation
        return None if self.continuation is None else "continuation"

    @property
    def source(self) -> pa.Schema:
        """Columns that pass through, as the files name them."""
        if self.id_column is None:
            return pa.schema(list(self.passthrough)[1:])
        return self.passthrough.set(0, self.passthrough.field(0).with_name(self.id_column))

    @property
    def has_choices(self) -> bool:
        """Whether a row has several continuations."""
        return self.continuation_kind in ("choices", "choices_token_ids")

    @property
    def has_text(self) -> bool:
        """Whether a tokenizer is needed to read the input."""
        return self.prompt != PROMPT_IDS or self.continuation_kind in ("continuation", "choices")

    def row_name(self, url: str, row: int) -> str:
        """Returns the id of a row of an input without ids: `<file>#<row>`, counted from 0 within the file."""
        return row_name(self.root, url, row)


def row_name(root: str, url: str, row: int) -> str:
    """Returns the id of a row of an input without ids: file below `root`, and the row counted from 0 within the file."""
    return f"{redact_credentials(posixpath.relpath(url, root))}#{row}"


def inspect_columns(files: Sequence[InputFile], columns: InputColumns) -> InputSchema:
    """Returns the schema that all `files` share.

    Raises:
        DatasetError: a column is missing, has a type that cannot be used, differs between files, or has the name of an output
            column.
    """
    schema = common_schema(files)
    where = files[0].url if len(files) == 1 else f"{files[0].url} and {len(files) - 1} other files"
    continuations = (columns.continuation_column, *CONTINUATIONS[1:])
    continuation = _one_of(schema, continuations, where) if columns.task == "score" else None
    prompt = _one_of(schema, (columns.prompt_column, PROMPT_IDS), where)
    parameters = tuple(name for name in PARAMETERS if name in schema.names)
    id_column = columns.id_column if columns.id_column in schema.names else None
    for name in filter(None, (prompt, continuation, id_column, *parameters)):
        roles = {columns.continuation_column: "continuation"}
        roles |= {kind: kind for kind in CONTINUATIONS[1:]}
        roles |= {prompt: "prompt", id_column: "id"}
        check_type(schema.field(name), roles.get(name, name), where)
    rest = [
        field
        for field in schema
        if field.name not in {prompt, continuation, id_column, *parameters}
    ]
    _check_names(rest, columns, where)
    kind = pa.string() if id_column is None else schema.field(id_column).type
    return InputSchema(
        columns=columns,
        root=input_root(files),
        prompt=prompt,
        continuation=continuation,
        parameters=parameters,
        id_column=id_column,
        passthrough=pa.schema([pa.field("id", kind), *rest]),
        json=formats.is_jsonl(files[0].url),
    )


def common_schema(files: Sequence[InputFile]) -> pa.Schema:
    """Returns the columns that all `files` have, with their types.

    Raises:
        DatasetError: they differ between files, or the files are of several kinds.
    """
    json = formats.is_jsonl(files[0].url)
    for file in files:
        if formats.is_jsonl(file.url) != json:
            raise DatasetError(
                f"the input mixes Parquet and JSON lines ({files[0].url}, {file.url}); run them "
                "separately"
            )
    return _json_schema(files) if json else _parquet_schema(files)


def input_root(files: Sequence[InputFile]) -> str:
    """Returns the folder that all `files` lie below."""
    if "://" not in files[0].url:
        return posixpath.commonpath([posixpath.dirname(file.url) for file in files])
    protocol = files[0].url.split("://")[0]
    return f"{protocol}://" + posixpath.commonpath(
        [posixpath.dirname(file.url.split("://", 1)[1]) for file in files]
    )


def _parquet_schema(files: Sequence[InputFile]) -> pa.Schema:
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        schemas = pool.map(formats.parquet_schema, [file.url for file in files])
        first = _plain(next(schemas), files[0].url)
        for file, schema in zip(files[1:], schemas, strict=True):
            _check_same(first, _plain(schema, file.url), files[0].url, file.url)
    return first


def _plain(schema: pa.Schema, url: str) -> pa.Schema:
    """Returns the schema without field metadata; the order of columns stays."""
    twice = [name for name in schema.names if schema.names.count(name) > 1]
    if twice:
        raise DatasetError(
            f"{url} has more than one column '{twice[0]}'; rename or drop one of them"
        )
    return pa.schema([pa.field(field.name, field.type) for field in schema])


def _check_same(first: pa.Schema, other: pa.Schema, first_url: str, url: str) -> None:
    for name in dict.fromkeys([*first.names, *other.names]):
        expected = first.field(name).type if name in first.names else None
        got = other.field(name).type if name in other.names else None
        if expected != got:
            raise DatasetError(
                f"column '{name}' of {url} is {got or 'missing'}, expected "
                f"{expected or 'no such column'} as in {first_url}; "
                "all files of an input need the same columns"
            )


def _json_schema(files: Sequence[InputFile]) -> pa.Schema:
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        found = pool.map(
            formats.jsonl_columns, [file.url for file in files], [file.rows for file in files]
        )
        columns = reduce(JsonColumns.united, found)
    return pa.schema([columns.field(name) for name in columns.types])


def _one_of(schema: pa.Schema, names: Sequence[str], where: str) -> str:
    names = tuple(dict.fromkeys(names))  # a flag may name a column by its usual name
    found = [name for name in names if name in schema.names]
    if len(found) == 1:
        return found[0]
    wanted = " or ".join(f"'{name}'" for name in names)
    if not found:
        raise DatasetError(
            f"{where}: no column {wanted}, found {schema.names}; name it with --prompt-column or "
            "--continuation-column, or add it to the input"
        )
    raise DatasetError(f"{where}: expected one column of {wanted}, found {found}; drop all but one")


def _check_names(rest: "Sequence[pa.Field[Any]]", columns: InputColumns, where: str) -> None:
    for field in rest:
        if field.name in task_columns(columns.task):
            raise DatasetError(
                f"{where}: column '{field.name}' would pass through, but the output has a column "
                "of its own of that name; "
                "rename or drop it in the input"
            )


# -- types ----------------------------------------------------------------------------------------------------------------


def _is_text(kind: Any) -> bool:
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    readable = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_binary,
        types.is_large_binary,
    )
    return any(check(kind) for check in readable)


def _is_list_of(kind: Any, check: Callable[[Any], bool]) -> bool:
    lists = (
        types.is_list,
        types.is_large_list,
        types.is_fixed_size_list,
        types.is_list_view,
        types.is_large_list_view,
    )
    return any(is_list(kind) for is_list in lists) and (
        check(kind.value_type) or types.is_null(kind.value_type)
    )


def _is_ids(kind: Any) -> bool:
    return _is_list_of(kind, types.is_integer)


def _is_number(kind: Any) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _is_row_id(kind: Any) -> bool:
    return bool(types.is_integer(kind)) or _is_text(kind)


def _is_texts(kind: Any) -> bool:
    return _is_text(kind) or _is_list_of(kind, _is_text)


_PARAMETER_TYPES: dict[ColumnType, tuple[str, Callable[[Any], bool]]] = {
    "integer": ("an integer", types.is_integer),
    "number": ("a number", _is_number),
    "boolean": ("a boolean", types.is_boolean),
    "texts": ("a string or a list of strings", _is_texts),
}

_EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "id": ("a string or an integer", _is_row_id),
    "prompt": ("a string", _is_text),
    PROMPT_IDS: ("a list of integers", _is_ids),
    "continuation": ("a string", _is_text),
    "continuation_token_ids": ("a list of integers", _is_ids),
    "choices": ("a list of strings", lambda kind: _is_list_of(kind, _is_text)),
    "choices_token_ids": ("a list of lists of integers", lambda kind: _is_list_of(kind, _is_ids)),
    **{name: _PARAMETER_TYPES[item.kind.column] for name, item in PARAMETERS.items()},
}


def check_type(field: "pa.Field[Any]", role: str, where: str) -> None:
    """Checks that a column has a type that its role can use: `id`, `prompt`, or the name of a sampling parameter.

    Raises:
        DatasetError: it has not.
    """
    role = PROMPT_IDS if field.name == PROMPT_IDS else role
    expected, check = _EXPECTED[role]
    mixed = field.metadata == JSON_TEXT
    if mixed and role == "id":
        raise DatasetError(
            f"{where}: column '{field.name}' has values of several types, expected {expected} in "
            "every row; convert it"
        )
    # A mixed column of JSON lines is not refused: single rows are wrong, and they fail by
    # themselves.
    if not mixed and not types.is_null(field.type) and not check(field.type):
        raise DatasetError(
            f"{where}: column '{field.name}' is {field.type}, expected {expected}; convert it in "
            "the input"
        )
