"""Reads files of seed rows: one schema for all of them, and blocks of rows as Python values.

Templates can use every column. The columns that are kept pass through to the data set unchanged;
those named like a sampling flag (`n`, `temperature`, …) go with the request and set it for their
row, as in any input of the main job.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from actors.protocol.plain_text import quoted
from actors.protocol.sampling import PARAMETERS
from pipeline.errors import ConfigError, DatasetError
from pipeline.input import formats
from pipeline.input.column_types import check_type
from pipeline.input.columns import input_root, row_name
from pipeline.input.file_columns import FileColumns
from pipeline.input.json_text import is_json_text
from pipeline.input.partitions import check_id_column, partition_of
from pipeline.records import InputFile, Shard
from pipeline.storage.redaction import redact_credentials
from pipeline.synthesis.columns import RESERVED

# column of request rows with the pass-through columns, for any column names
ROW = "row"


@dataclass(frozen=True, slots=True)
class SeedSchema:
    """Columns that all files of seeds have in common."""

    root: str  # folder to which `<file>` in `<file>#<row>` is relative
    id_column: str | None  # None: ids are made from file and row
    id_type: pa.DataType
    columns: tuple[str, ...]  # in the order of the files
    kept: pa.Schema  # in the order of the files, dictionaries decoded
    notices: tuple[str, ...] = ()  # which columns are not kept as the files have them
    folder_columns: tuple[str, ...] = ()  # those of `columns` that the names of folders give

    @property
    def request(self) -> pa.Schema:
        """Columns of a request row: `id`, sampling parameters, and `row` with the others."""
        fields = [pa.field("id", self.id_type)]
        passed_on = []
        for field in self.kept:
            if field.name in PARAMETERS:
                fields.append(field)
            else:
                passed_on.append(field)
        if passed_on:
            fields.append(pa.field(ROW, pa.struct(passed_on)))
        return pa.schema(fields)

    @property
    def passed_on(self) -> pa.Schema:
        """`id` and the columns that reach the data set: all but those that set sampling."""
        return kept_columns(self.request)


@dataclass(frozen=True, slots=True)
class SeedBlock:
    """The rows of one shard of seeds."""

    shard: Shard
    ids: tuple[str | int | None, ...]  # None: the row has a fault, and its id cannot be read
    rows: tuple[Mapping[str, object], ...]  # all columns, as Python values
    kept: pa.Table
    faults: Mapping[int, str]  # position → why the row cannot be used


def inspect_seeds(
    files: Sequence[InputFile], id_column: str, keep: Sequence[str] = ()
) -> SeedSchema:
    """Returns the columns of the seeds.

    Args:
        files: files of seed rows.
        id_column: name of the column of ids, if the seeds have it.
        keep: columns that pass through; empty: all of them.

    Raises:
        ConfigError: `keep` names a column that is not there.
        DatasetError: files differ, or a kept column has a reserved name or a type that its role
            cannot use.
    """
    seeds = formats.file_columns(files)
    source = files[0].url
    if len(files) > 1:
        source = f"{source} and {len(files) - 1} other files"

    check_id_column(seeds, id_column, source)
    has_id = id_column in seeds.names
    candidates = [name for name in seeds.names if not (has_id and name == id_column)]
    for name in keep:
        if name not in candidates:
            raise ConfigError(
                f"--keep: the seeds have no column {quoted(name)}; they have "
                f"{', '.join(candidates)}"
            )

    kept_names: list[str] = []
    for name in candidates:
        if keep and name not in keep:
            continue
        _check_name(name, source)
        kept_names.append(name)
    kept = seeds.passthrough(kept_names)
    for field in kept.fields:
        if field.name in PARAMETERS:
            _check_types(seeds, field, field.name, source)

    id_type: Any = pa.string()
    if has_id:
        [id_field] = seeds.passthrough([id_column]).fields
        _check_types(seeds, id_field, "id", source)
        if pa.types.is_integer(id_field.type) or pa.types.is_decimal(id_field.type):
            id_type = id_field.type
    return SeedSchema(
        root=input_root(files),
        id_column=id_column if has_id else None,
        id_type=id_type,
        columns=tuple(seeds.names),
        kept=pa.schema([_decoded(field) for field in kept.fields]),
        notices=(*seeds.notices, *kept.notices),
        folder_columns=seeds.from_folders,
    )


def read_seeds(shards: Iterable[Shard], schema: SeedSchema) -> Iterator[SeedBlock]:
    """Yields the rows of `shards`, in their order; each file is opened once.

    Raises:
        DatasetError: a file has vanished, changed, or is damaged.
    """
    for url, shards_of_file in groupby(shards, key=lambda shard: shard.url):
        file_shards = list(shards_of_file)
        first = file_shards[0]
        source = formats.SourceFile(url, first.version, first.size)
        partition = partition_of(first, schema.folder_columns)
        with formats.open_cursor(
            source, schema.columns, schema.kept, partition=partition
        ) as cursor:
            for shard in file_shards:
                yield _block(shard, cursor.take(shard.first_row, shard.rows), schema)


def kept_columns(requests: pa.Schema) -> pa.Schema:
    """Returns the columns of request rows that reach the data set: `id` and the fields of `row`."""
    fields = [requests.field("id")]
    if ROW in requests.names:
        row: Any = requests.field(ROW).type
        fields += list(row)
    return pa.schema(fields)


def _block(shard: Shard, read: formats.Rows, schema: SeedSchema) -> SeedBlock:
    columns = [read.values[name] for name in schema.columns]
    rows = tuple(
        dict(zip(schema.columns, values, strict=True)) for values in zip(*columns, strict=True)
    )
    return SeedBlock(
        shard,
        _ids(shard, rows, schema),
        rows,
        read.passthrough,
        _faults(read, shard, schema.root),
    )


def _ids(
    shard: Shard, rows: Sequence[Mapping[str, Any]], schema: SeedSchema
) -> tuple[str | int | None, ...]:
    if schema.id_column is not None:
        return tuple(row[schema.id_column] for row in rows)
    numbers = range(shard.first_row, shard.first_row + shard.rows)
    return tuple(row_name(schema.root, shard.url, number) for number in numbers)


def _faults(read: formats.Rows, shard: Shard, root: str) -> dict[int, str]:
    """Returns the faults of rows by position, with files named as in ids.

    Rejected rows are published; the places of files are in run.json alone.
    """
    url = redact_credentials(shard.url)
    file_name = row_name(root, shard.url, 0).rpartition("#")[0]
    faults = {}
    for position, fault in read.faults.items():
        name = row_name(root, shard.url, shard.first_row + position)
        message = redact_credentials(fault).replace(url, file_name)
        faults[position] = f"{name}: {message}"
    return faults


def _check_name(name: str, source: str) -> None:
    if name in RESERVED:
        raise DatasetError(
            f"{source}: column '{name}' would pass through, but the data set has a column of "
            "its own of that name; rename it, "
            "or name the columns that pass through with --keep: templates can use all of them"
        )


def _check_types(seeds: FileColumns, field: Any, use: str, source: str) -> None:
    """Checks a column that the requests use: prompts hold it in one type."""
    for data_type, url in seeds.types[field.name].items():
        check_type(field.name, data_type, use, url)
    if is_json_text(field):
        raise DatasetError(
            f"{source}: column '{field.name}' has values of several types; convert it in the input"
        )


def _decoded(field: Any) -> Any:
    """Returns the field of a dictionary-encoded column as one of its values.

    Files of one data set must not differ in this.
    """
    if pa.types.is_dictionary(field.type):
        return field.with_type(field.type.value_type)
    return field
