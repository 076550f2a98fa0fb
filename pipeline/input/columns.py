"""Input files and the run's column names → `InputSchema`: what is read, and what passes through.

prompt | prompt_token_ids                       exactly one
continuation | choices | their …_token_ids      exactly one, for tasks that read continuations
max_tokens temperature top_p …                  sampling parameters of the row
id                                              passes through; without it ids are `<file>#<row>`
all others                                      pass through unchanged
"""

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from actors.protocol.sampling import PARAMETERS
from pipeline.errors import DatasetError
from pipeline.input import formats
from pipeline.input.column_types import check_type
from pipeline.input.roles import ColumnForm, InputRole
from pipeline.output.schema import task_columns
from pipeline.records import InputFile
from pipeline.storage.redaction import redact_credentials
from pipeline.tasks import Task


@dataclass(frozen=True, slots=True)
class InputColumns:
    """What the run calls its columns, and the task that reads them."""

    task: Task
    prompt_column: str = "prompt"
    id_column: str = "id"
    continuation_column: str = "continuation"
    boundary_chars: bool = False  # the output has this column

    def name_of(self, role: InputRole) -> str:
        """Returns the name that the run gives to the column of a role."""
        return {"prompt": self.prompt_column, "continuation": self.continuation_column}[role.name]


@dataclass(frozen=True, slots=True)
class RoleColumn:
    """The column that holds what the task reads for one role."""

    name: str  # in the files
    form: ColumnForm


@dataclass(frozen=True, slots=True)
class InputSchema:
    """What every file of the input has, decided once before anything starts."""

    root: str  # the folder that `<file>` in `<file>#<row>` is relative to
    role_columns: tuple[RoleColumn, ...]
    parameters: tuple[str, ...]  # sampling parameters that the input has
    id_column: str | None  # None: ids are made from file and row
    passthrough: pa.Schema  # `id` first

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns that are read as Python values."""
        names = [column.name for column in self.role_columns]
        if self.id_column is not None:
            names.insert(0, self.id_column)
        return (*names, *self.parameters)

    @property
    def source(self) -> pa.Schema:
        """Columns that pass through, as the files name them."""
        if self.id_column is None:
            return pa.schema(list(self.passthrough)[1:])
        return self.passthrough.set(0, self.passthrough.field(0).with_name(self.id_column))

    @property
    def has_choices(self) -> bool:
        """Whether a row has several continuations."""
        return any(column.form.is_list for column in self.role_columns)

    @property
    def has_text(self) -> bool:
        """Whether a tokenizer is needed to read the input."""
        return any(column.form.is_text for column in self.role_columns)

    def row_name(self, url: str, row: int) -> str:
        """Returns the id of a row of an input without ids: `<file>#<row>`, counted from 0."""
        return row_name(self.root, url, row)


def inspect_columns(files: Sequence[InputFile], columns: InputColumns) -> InputSchema:
    """Returns the schema that all `files` share. Reads only footers of Parquet files.

    Raises:
        DatasetError: a column is missing, has a type that cannot be used, differs between files, or
            has the name of an output column.
    """
    schema = formats.common_schema(files)
    source = _describe(files)
    role_columns = tuple(_role_columns(schema, columns, source))
    for column in role_columns:
        check_type(schema.field(column.name), column.form.name, source)
    _check_same_kind(role_columns, source)

    parameters = tuple(name for name in PARAMETERS if name in schema.names)
    for name in parameters:
        check_type(schema.field(name), name, source)

    id_column = None
    id_type = pa.string()
    if columns.id_column in schema.names:
        id_column = columns.id_column
        id_type = schema.field(id_column).type
        check_type(schema.field(id_column), "id", source)

    id_field = pa.field("id", id_type)
    inspected = InputSchema(
        root=input_root(files),
        role_columns=role_columns,
        parameters=parameters,
        id_column=id_column,
        passthrough=pa.schema([id_field]),
    )
    inputs = frozenset(inspected.inputs)
    passthrough = [field for field in schema if field.name not in inputs]
    _check_output_names(passthrough, columns, source)
    return replace(inspected, passthrough=pa.schema([id_field, *passthrough]))


def input_root(files: Sequence[InputFile]) -> str:
    """Returns the folder that all `files` lie below."""
    protocol, separator, _ = files[0].url.rpartition("://")
    prefix = protocol + separator
    folders = [posixpath.dirname(file.url.removeprefix(prefix)) for file in files]
    return prefix + posixpath.commonpath(folders)


def row_name(root: str, url: str, row: int) -> str:
    """Returns the id of a row of an input without ids: file below `root`, row counted from 0."""
    return f"{redact_credentials(posixpath.relpath(url, root))}#{row}"


def _describe(files: Sequence[InputFile]) -> str:
    if len(files) == 1:
        return files[0].url
    return f"{files[0].url} and {len(files) - 1} other files"


def _role_columns(schema: pa.Schema, columns: InputColumns, source: str) -> Iterator[RoleColumn]:
    for role in columns.task.input_roles:
        yield _find_role_column(schema, role, columns.name_of(role), source)


def _find_role_column(schema: pa.Schema, role: InputRole, renamed: str, source: str) -> RoleColumn:
    """Returns the column of a role.

    `renamed` replaces the usual name of the first form. The usual name of another form stands for
    that form, also where the run gives it.
    """
    forms = {renamed: role.forms[0]}
    for form in role.forms[1:]:
        forms[form.name] = form
    present = [name for name in forms if name in schema.names]
    if len(present) == 1:
        return RoleColumn(present[0], forms[present[0]])

    expected = " or ".join(f"'{name}'" for name in forms)
    if present:
        raise DatasetError(
            f"{source}: expected one column of {expected}, found {present}; drop all but one"
        )
    raise DatasetError(
        f"{source}: no column {expected}, found {schema.names}; name it with --prompt-column or "
        "--continuation-column, or add it to the input"
    )


def _check_same_kind(role_columns: Sequence[RoleColumn], source: str) -> None:
    """Rejects text that continues token ids: it can only be cut where a text ends."""
    first = role_columns[0]
    for column in role_columns[1:]:
        if column.form.is_text and not first.form.is_text:
            raise DatasetError(
                f"{source}: column '{first.name}' has token ids and column '{column.name}' has "
                "text; give both as text or both as token ids"
            )


def _check_output_names(
    passthrough: "Sequence[pa.Field[Any]]", columns: InputColumns, source: str
) -> None:
    reserved = task_columns(columns.task, boundary_chars=columns.boundary_chars)
    for field in passthrough:
        if field.name in reserved:
            raise DatasetError(
                f"{source}: column '{field.name}' would pass through, but the output has a column "
                "of its own of that name; rename or drop it in the input"
            )
