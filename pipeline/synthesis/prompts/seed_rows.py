"""Files of seed rows → their columns, decided once, and blocks of rows as Python values.

It knows no templates.

Every column can be used by templates. The columns that are kept pass through to the data set as
they are; those named like a sampling flag (`n`, `temperature`, …) go with the request and set it
for their row, as in any input of the main job.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa

from actors.protocol.sampling import PARAMETERS
from pipeline.errors import ConfigError, DatasetError
from pipeline.input import formats
from pipeline.input.columns import check_type, common_schema, input_root, row_name
from pipeline.records import InputFile, Shard
from pipeline.storage.redaction import redact_credentials
from pipeline.synthesis.selection.samples import ERROR_COLUMNS

OWN_COLUMNS = frozenset(  # of the data set, of rejected rows, and of samples on their way
    {
        "id", "sample_index", "template", "prompt", "completion", "finish_reason", "prompt_tokens", "completion_tokens",
        "mean_logprob", "votes", "voters", "stage", "reason", "detail", "duplicate_of", "samples", *ERROR_COLUMNS,
    }
)  # fmt: skip
# the column of request rows that holds the columns that pass through, whatever they are called
ROW = "row"


@dataclass(frozen=True, slots=True)
class SeedSchema:
    """What every file of seeds has."""

    root: str  # the folder that `<file>` in `<file>#<row>` is relative to
    id_column: str | None  # None: ids are made from file and row
    id_type: pa.DataType
    columns: tuple[str, ...]  # all of them
    kept: pa.Schema  # in the order of the files, dictionaries decoded

    @property
    def request(self) -> pa.Schema:
        """Columns of a request row: `id`, those that set its sampling, and in one column those that reach the data set."""
        parameters = [field for field in self.kept if field.name in PARAMETERS]
        others = [field for field in self.kept if field.name not in PARAMETERS]
        row = [pa.field(ROW, pa.struct(others))] if others else []
        return pa.schema([pa.field("id", self.id_type), *parameters, *row])

    @property
    def passed_on(self) -> pa.Schema:
        """`id` and the columns that reach the data set: those that set sampling for their row do not."""
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
        files: of seed rows.
        id_column: name of the column of ids, if the seeds have it.
        keep: columns that pass through; none: all of them.

    Raises:
        ConfigError: `keep` names a column that is not there.
        DatasetError: files differ, or a kept column has a name that is taken or a type that its role cannot use.
    """
    found = common_schema(files)
    where = files[0].url if len(files) == 1 else f"{files[0].url} and {len(files) - 1} other files"
    has_id = id_column in found.names
    others = [name for name in found.names if not (has_id and name == id_column)]
    missing = [name for name in keep if name not in others]
    if missing:
        raise ConfigError(
            f"--keep: the seeds have no column {missing[0]!r}; they have {', '.join(others)}"
        )
    kept = [found.field(name) for name in others if not keep or name in keep]
    _check_names([field.name for field in kept], where)
    for field in kept:
        if field.name in PARAMETERS:
            check_type(field, field.name, where)
    if has_id:
        check_type(found.field(id_column), "id", where)
    return SeedSchema(
        root=input_root(files),
        id_column=id_column if has_id else None,
        id_type=_id_type(found.field(id_column).type) if has_id else pa.string(),
        columns=tuple(found.names),
        kept=pa.schema([field.with_type(_plain(field.type)) for field in kept]),
    )


def read_seeds(shards: Iterable[Shard], schema: SeedSchema) -> Iterator[SeedBlock]:
    """Yields the rows of `shards`, in their order; each file is opened once.

    Raises:
        DatasetError: a file has vanished, changed, or is damaged.
    """
    for url, in_file in groupby(shards, key=lambda shard: shard.url):
        own = list(in_file)
        with formats.open_cursor(url, schema.columns, schema.kept, own[0].version) as cursor:
            for shard in own:
                read = cursor.take(shard.first_row, shard.rows)
                values = zip(*(read.values[name] for name in schema.columns), strict=True)
                rows = tuple(dict(zip(schema.columns, row, strict=True)) for row in values)
                yield SeedBlock(
                    shard,
                    _ids(shard, rows, schema),
                    rows,
                    read.passthrough,
                    _faults(read, shard, schema.root),
                )


def kept_columns(requests: pa.Schema) -> pa.Schema:
    """Returns those columns of request rows that reach the data set: `id`, and those of the column `row`."""
    row: Any = requests.field(ROW).type if ROW in requests.names else pa.struct([])
    return pa.schema([requests.field("id"), *(row.field(index) for index in range(row.num_fields))])


def _ids(
    shard: Shard, rows: Sequence[Mapping[str, Any]], schema: SeedSchema
) -> tuple[str | int | None, ...]:
    if schema.id_column is not None:
        return tuple(row[schema.id_column] for row in rows)
    return tuple(
        row_name(schema.root, shard.url, shard.first_row + position)
        for position in range(shard.rows)
    )


def _faults(read: formats.Rows, shard: Shard, root: str) -> dict[int, str]:
    """Returns what is wrong, with files named as in ids: rejected rows are published, and where files lay is in run.json."""
    url, name = redact_credentials(shard.url), row_name(root, shard.url, 0).rpartition("#")[0]
    told = {row: redact_credentials(fault).replace(url, name) for row, fault in read.faults.items()}
    return {
        row: f"{row_name(root, shard.url, shard.first_row + row)}: {fault}"
        for row, fault in told.items()
    }


def _check_names(names: Sequence[str], where: str) -> None:
    for name in names:
        if name in OWN_COLUMNS:
            raise DatasetError(
                f"{where}: column '{name}' would pass through, but the data set has a column of "
                "its own of that name; rename it, "
                "or name the columns that pass through with --keep: templates can use all of them"
            )


def _id_type(kind: Any) -> Any:
    return kind if pa.types.is_integer(kind) else pa.string()


def _plain(kind: Any) -> Any:
    """A column that is stored as a dictionary is handed on as its values: files of one data set must not differ in this."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind
