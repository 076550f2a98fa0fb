"""Input files and the run's column names → `InputSchema`: what is read, and what passes through.

prompt | prompt_token_ids                       exactly one
continuation | choices | their …_token_ids      exactly one, for tasks that read continuations
max_tokens temperature top_p …                  sampling parameters of the row
id                                              passes through; without it ids are `<file>#<row>`
all others                                      pass through unchanged
"""

import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from actors.protocol.plain_text import quoted
from actors.protocol.sampling import PARAMETERS
from pipeline.errors import DatasetError
from pipeline.input import formats
from pipeline.input.column_types import check_type
from pipeline.input.file_columns import FileColumns
from pipeline.input.json_text import is_json_text
from pipeline.input.partitions import check_id_column, partition_of
from pipeline.input.roles import PROMPT as PROMPT_ROLE
from pipeline.input.roles import ColumnForm, InputRole
from pipeline.output.schema import STATUS, task_columns
from pipeline.records import InputFile, Partition, Shard
from pipeline.storage.redaction import redact_credentials
from pipeline.tasks import Task
from pipeline.templates.row_template import ROW, RowTemplate

ID = "id"  # the output's column of ids, and the usual name in the input
PROMPT = "prompt"  # the field of the text that a template gives, and its column of the output
# Usual names of the column of prompts in data sets of others.
OTHER_PROMPT_NAMES = frozenset({"text", "question", "instruction", "input", "inputs", "query"})
CHAT_NAMES = frozenset({"messages", "conversation", "conversations"})
# Delimiters of tables that are not CSV: a header of theirs is one name.
DELIMITERS: Mapping[str, str] = MappingProxyType({";": "semicolons", "\t": "tabs", "|": "bars"})
INPUT_PREFIX = "input_"  # of input columns whose name is that of an output column


@dataclass(frozen=True, slots=True)
class InputColumns:
    """What the run calls its columns, and the task that reads them."""

    task: Task
    prompt_column: str = "prompt"
    id_column: str = "id"
    continuation_column: str = "continuation"
    boundary_chars: bool = False  # the output has this column
    token_logprobs: bool = False  # the output has the columns of scored tokens
    text_bytes: bool = False  # the output has the bytes of a text, and bits per byte
    windows: bool = False  # the output has the number of windows of a text
    template: RowTemplate | None = None  # gives the prompt; the prompt column is one of many then
    keep_prompt: bool = False  # the prompt passes through

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
    # columns that pass through under another name than they have in the files, by their new name
    renamed: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()  # what a user should know before the run starts
    folder_columns: tuple[str, ...] = ()  # whose values the names of folders give
    template: RowTemplate | None = None  # gives the prompt
    template_columns: tuple[str, ...] = ()  # that the template takes
    writes_rendered_prompt: bool = False  # behind `id`

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns that are read as Python values."""
        names = [column.name for column in self.role_columns]
        if self.id_column is not None:
            names.insert(0, self.id_column)
        return tuple(dict.fromkeys([*names, *self.parameters, *self.template_columns]))

    @property
    def source(self) -> pa.Schema:
        """Columns that pass through, as the files name them."""
        fields: list[pa.Field[Any]] = []
        if self.id_column is not None:
            fields.append(self.passthrough.field("id").with_name(self.id_column))
        first = 2 if self.writes_rendered_prompt else 1
        for column in list(self.passthrough)[first:]:
            file_name = self.renamed.get(column.name, column.name)
            fields.append(column.with_name(file_name))
        return pa.schema(fields)

    @property
    def has_choices(self) -> bool:
        """Whether a row has several continuations."""
        return any(column.form.is_list for column in self.role_columns)

    @property
    def has_text(self) -> bool:
        """Whether a tokenizer is needed to read the input."""
        return self.template is not None or any(column.form.is_text for column in self.role_columns)

    def folder_values(self, shard: Shard) -> Partition:
        """Returns the values that all rows of a shard have in columns of their folders."""
        return partition_of(shard, self.folder_columns)

    def row_name(self, url: str, row: int) -> str:
        """Returns the id of a row of an input without ids: `<file>#<row>`, counted from 0."""
        return row_name(self.root, url, row)


def inspect_columns(files: Sequence[InputFile], columns: InputColumns) -> InputSchema:
    """Returns the schema that all `files` share. Reads only footers of Parquet files.

    Raises:
        DatasetError: a column is missing, has a type that cannot be used, differs between files, or
            has the name of an output column.
    """
    file_columns = formats.file_columns(files)
    source = _describe(files)
    template_columns = _template_columns(file_columns.names, columns)
    role_columns = tuple(_role_columns(file_columns.names, columns, source))
    for column in role_columns:
        _check_types(file_columns, column.name, column.form.name, source)
    if columns.template is None:
        _check_same_kind(role_columns, source)

    parameters = tuple(name for name in PARAMETERS if name in file_columns.types)
    for name in parameters:
        _check_types(file_columns, name, name, source)

    id_column = _find_id_column(file_columns, columns, source)
    consumed = {*parameters, *_consumed(role_columns, columns), id_column}
    passing = [name for name in file_columns.names if name not in consumed]
    passthrough = file_columns.passthrough(passing)
    writes_rendered_prompt = columns.keep_prompt and columns.template is not None
    renamed, fields = _output_fields(passthrough.fields, id_column, columns, source)
    if writes_rendered_prompt:
        fields.insert(0, pa.field(PROMPT, pa.string()))

    notices = [*file_columns.notices, *passthrough.notices, *_notices(parameters, renamed)]
    return InputSchema(
        root=input_root(files),
        role_columns=role_columns,
        parameters=parameters,
        id_column=id_column,
        passthrough=pa.schema([_id_field(file_columns, id_column, source), *fields]),
        renamed=renamed,
        notices=tuple(notices),
        folder_columns=file_columns.from_folders,
        template=columns.template,
        template_columns=template_columns,
        writes_rendered_prompt=writes_rendered_prompt,
    )


def _template_columns(names: Sequence[str], columns: InputColumns) -> tuple[str, ...]:
    """Returns the columns that the template takes: all of them if it uses `row`.

    Raises:
        ConfigError: a column is missing.
    """
    template = columns.template
    if template is None:
        return ()
    uses_row = ROW in template.names and ROW not in names
    used = template.names
    if uses_row:
        used = (template.names - {ROW}) | template.row_columns
    template.check_names(used, names, "the rows")
    if uses_row:
        return tuple(names)
    return tuple(name for name in names if name in used)


def _consumed(role_columns: Sequence[RoleColumn], columns: InputColumns) -> Iterator[str]:
    """Yields the columns of roles that do not pass through."""
    for column in role_columns:
        is_prompt = column.form in PROMPT_ROLE.forms
        if not (is_prompt and columns.keep_prompt):
            yield column.name


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


def _role_columns(names: Sequence[str], columns: InputColumns, source: str) -> Iterator[RoleColumn]:
    for role in columns.task.input_roles:
        if role is PROMPT_ROLE and columns.template is not None:
            continue
        yield _find_role_column(names, role, columns.name_of(role), source)


def _find_role_column(
    names: Sequence[str], role: InputRole, renamed: str, source: str
) -> RoleColumn:
    """Returns the column of a role.

    `renamed` replaces the usual name of the first form. The usual name of another form stands for
    that form, also where the run gives it.
    """
    forms = {renamed: role.forms[0]}
    for form in role.forms[1:]:
        forms[form.name] = form
    present = [name for name in forms if name in names]
    if len(present) == 1:
        return RoleColumn(present[0], forms[present[0]])

    expected = " or ".join(quoted(name) for name in forms)
    if present:
        raise DatasetError(
            f"{source}: expected one column of {expected}, found {quoted(present)}; drop all but "
            "one"
        )
    raise DatasetError(
        f"{source}: no column {expected}, found {quoted(list(names))}; name it with "
        "--prompt-column or --continuation-column, or add it to the input"
        f"{_column_hint(names, role, forms)}"
    )


def _column_hint(names: Sequence[str], role: InputRole, forms: Collection[str]) -> str:
    """Returns what was probably meant by columns of which none has the name of a role."""
    for delimiter, delimiter_name in DELIMITERS.items():
        if len(names) == 1 and delimiter in names[0]:
            return f"; the values seem to be separated by {delimiter_name}, expected commas"

    expected = {name.lower() for name in forms}
    for name in names:
        if name.strip().lower() in expected:
            return f"; did you mean {quoted(name)}?"
    if role is not PROMPT_ROLE:
        return ""
    for name in names:
        if name in OTHER_PROMPT_NAMES:
            return f"; did you mean {quoted(name)}?"
        if name in CHAT_NAMES:
            return f"; --template makes prompts of chat messages, such as {quoted(name)}"
    return ""


def _check_same_kind(role_columns: Sequence[RoleColumn], source: str) -> None:
    """Rejects text that continues token ids: it can only be cut where a text ends."""
    first = role_columns[0]
    for column in role_columns[1:]:
        if column.form.is_text and not first.form.is_text:
            raise DatasetError(
                f"{source}: column {quoted(first.name)} has token ids and column "
                f"{quoted(column.name)} has "
                "text; give both as text or both as token ids"
            )


def _check_types(file_columns: FileColumns, name: str, use: str, source: str) -> None:
    """Checks the types that a column has in all files; a message names the file if they differ."""
    types = file_columns.types[name]
    for data_type, url in types.items():
        if len(types) > 1:
            check_type(name, data_type, use, url)
        else:
            check_type(name, data_type, use, source)


def _find_id_column(file_columns: FileColumns, columns: InputColumns, source: str) -> str | None:
    """Returns the column of ids; None if there is none and the run names none."""
    name = columns.id_column
    check_id_column(file_columns, name, source)
    if name in file_columns.types:
        _check_types(file_columns, name, "id", source)
        return name
    if name != ID:
        raise DatasetError(
            f"{source}: no column {quoted(name)}, found {quoted(list(file_columns.names))}; give "
            f"the name of a "
            "column with --id-column, or leave it out: ids are then made from file and row"
        )
    return None


def _id_field(file_columns: FileColumns, id_column: str | None, source: str) -> "pa.Field[Any]":
    """Returns the field of the output's ids."""
    if id_column is None:
        return pa.field(ID, pa.string())
    [column] = file_columns.passthrough([id_column]).fields
    if is_json_text(column):
        check_type(id_column, None, "id", source)
    return column.with_name(ID)


def _output_fields(
    fields: "Sequence[pa.Field[Any]]",
    id_column: str | None,
    columns: InputColumns,
    source: str,
) -> "tuple[dict[str, str], list[pa.Field[Any]]]":
    """Returns the fields of the output that pass through.

    A column `id` beside the one that --id-column names passes through as `input_id`, and `prompt`
    beside the prompt of a template as `input_prompt`. So do the columns of a run's output that is
    the input of another run, such as `status`.

    Returns:
        The names in the files of columns that have another name in the output, by that name; and
        the fields.

    Raises:
        DatasetError: a column has the name of an output column.
    """
    reserved = task_columns(
        columns.task,
        boundary_chars=columns.boundary_chars,
        token_logprobs=columns.token_logprobs,
        text_bytes=columns.text_bytes,
        windows=columns.windows,
    )
    prompt_column = None  # that passes through under another name where its own is taken
    if columns.keep_prompt:
        prompt_column = columns.prompt_column
        if columns.template is not None:
            reserved |= {PROMPT}
            prompt_column = PROMPT
    names = {column.name for column in fields}
    is_output_of_run = {column.name for column in STATUS} <= names
    renamed: dict[str, str] = {}
    output_fields: list[pa.Field[Any]] = []
    for column in fields:
        new_name = INPUT_PREFIX + column.name
        is_second_id = column.name == ID and id_column is not None
        is_prompt = column.name == prompt_column
        may_be_renamed = is_second_id or is_prompt or is_output_of_run
        if column.name in reserved and may_be_renamed and new_name not in names:
            renamed[new_name] = column.name
            output_fields.append(column.with_name(new_name))
            continue
        if column.name in reserved:
            raise DatasetError(
                f"{source}: column {quoted(column.name)} would pass through, but the output has a "
                f"column "
                "of its own of that name; rename or drop it in the input"
            )
        output_fields.append(column)
    return renamed, output_fields


def _notices(parameters: Sequence[str], renamed: Mapping[str, str]) -> Iterator[str]:
    if parameters:
        yield (
            f"columns that set sampling parameters of their row: {', '.join(parameters)}. They do "
            "not pass through; rename them in the input if they mean something else"
        )
    for name, file_name in renamed.items():
        yield f"column '{file_name}' of the input passes through as '{name}'"
