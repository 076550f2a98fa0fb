"""Columns and errors of files that Arrow reads: what Parquet and Arrow IPC have in common."""

from collections.abc import Iterator, KeysView, Sequence
from contextlib import contextmanager

import pyarrow as pa

from actors.retries import is_transient
from pipeline.errors import DatasetError
from pipeline.input.file_columns import FileColumns
from pipeline.records import InputFile
from pipeline.storage.redaction import redact_credentials


@contextmanager
def damage_explained(url: str, format_name: str) -> Iterator[None]:
    """Raises Arrow's errors of a damaged file as DatasetError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        is_of_storage = isinstance(error, OSError) and error.errno is not None
        if is_of_storage or is_transient(error):
            raise  # the disk or the network failed, not the file: storage explains it
        reason = " ".join(str(error).split())  # Arrow's may have several lines
        raise DatasetError(
            f"{redact_credentials(url)} is not a readable {format_name} file: {reason}; write it "
            "again or leave it out"
        ) from error


def column_types(schema: pa.Schema, url: str) -> dict[str, pa.DataType]:
    """Returns the columns of a file.

    Raises:
        DatasetError: two columns have the same name.
    """
    types: dict[str, pa.DataType] = {}
    for field in schema:
        if field.name in types:
            raise DatasetError(
                f"{url} has more than one column '{field.name}'; rename or drop one of them"
            )
        types[field.name] = field.type
    return types


def united_columns(files: Sequence[InputFile]) -> FileColumns:
    """Returns the columns of `files`, whose `columns` are from `column_types`.

    Raises:
        DatasetError: a column is not in all files; their order may differ.
    """
    first = files[0]
    types: dict[str, dict[pa.DataType | None, str]] = {name: {} for name in first.columns}
    for file in files:
        _check_same_names(types.keys(), file.columns.keys(), first.url, file.url)
        for name, data_type in file.columns.items():
            types[name].setdefault(data_type, file.url)
    return FileColumns(types)


def _check_same_names(first: KeysView[str], names: KeysView[str], first_url: str, url: str) -> None:
    for missing, file_url, other_url in (
        (first - names, url, first_url),
        (names - first, first_url, url),
    ):
        for name in sorted(missing):
            raise DatasetError(
                f"column '{name}' of {file_url} is missing, but {other_url} has it; all files of "
                "an input need the same columns"
            )
