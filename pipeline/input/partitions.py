"""Columns that the names of folders give: `subject=math/part-0.parquet`, as Hive and Spark write.

A column holds integers if the values of all files are plain integers, otherwise strings. Sampling
parameters may also be numbers and truth values of JSON, as in CSV. Files outside of such folders,
and `__HIVE_DEFAULT_PARTITION__`, have null.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from actors.protocol.plain_text import bare
from actors.protocol.sampling import PARAMETERS
from pipeline.errors import DatasetError
from pipeline.input.file_columns import FileColumns
from pipeline.records import InputFile, Partition, PartitionValue, Shard

NULL_VALUE = "__HIVE_DEFAULT_PARTITION__"
INT64 = np.iinfo(np.int64)
# Types of the values of a parameter, by the type of its columns.
JSON_TYPES: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {"integer": (int, float), "number": (int, float), "boolean": (bool,)}
)


def is_partition(folder: str) -> bool:
    """Whether the name of a folder gives a column."""
    return folder.partition("=")[0] != "" and "=" in folder


def partitions(paths: Iterable[str]) -> list[Partition]:
    """Returns the columns of each path, which begins below the input folder.

    Raises:
        DatasetError: a path gives one column twice.
    """
    texts = [_partition_texts(path) for path in paths]
    columns: dict[str, Sequence[PartitionValue]] = {}
    for name in _names(texts):
        columns[name] = _typed(name, [row.get(name) for row in texts])
    if not columns:
        return [()] * len(texts)

    rows = zip(*columns.values(), strict=True)
    return [tuple(zip(columns, values, strict=True)) for values in rows]


def with_folder_columns(columns: FileColumns, files: Sequence[InputFile]) -> FileColumns:
    """Returns the columns of files and, after them, those of their folders.

    A column that the files have themselves is theirs.
    """
    types = dict(columns.types)
    from_folders: list[str] = []
    in_both: list[str] = []
    for name, _ in files[0].partition:
        if name in types:
            in_both.append(name)
            continue
        values: list[Any] = [dict(file.partition)[name] for file in files]
        types[name] = {pa.array(values).type: files[0].url}
        from_folders.append(name)
    notices = list(columns.notices)
    if in_both:
        notices.append(
            f"columns that both the files and the names of folders have: {', '.join(in_both)}. The "
            "values of the files are used"
        )
    return FileColumns(types, tuple(from_folders), tuple(notices))


def check_id_column(columns: FileColumns, name: str, source: str) -> None:
    """Raises DatasetError if the column of ids is not in the files."""
    if name in columns.from_folders:
        raise DatasetError(
            f"{source}: column '{name}' is the name of a folder, which is the same for all rows of "
            "a file; name another --id-column"
        )


def partition_of(file: InputFile | Shard, columns: Collection[str]) -> Partition:
    """Returns the values of `columns` that the folders of a file give."""
    return tuple((name, value) for name, value in file.partition if name in columns)


def _names(rows: Iterable[Iterable[str]]) -> Iterable[str]:
    """Returns the names of all rows in the order of first appearance."""
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row)
    return names


def _partition_texts(path: str) -> dict[str, str | None]:
    """Returns the values of the folders of a path by column, as text."""
    values: dict[str, str | None] = {}
    for folder in path.split("/")[:-1]:
        if not is_partition(folder):
            continue
        name, _, value = folder.partition("=")
        name = unquote(name)
        if name in values:
            raise DatasetError(
                f"{bare(path)} lies in two folders that give a column '{name}'; rename one of them"
            )
        values[name] = None if value == NULL_VALUE else unquote(value)
    return values


def _typed(name: str, values: Sequence[str | None]) -> Sequence[PartitionValue]:
    """Returns values as integers, or as numbers of a parameter, if that is what all of them are."""
    if all(value is None or _is_integer(value) for value in values):
        return [None if value is None else int(value) for value in values]
    parameter = PARAMETERS.get(name)
    if parameter is not None and parameter.kind.column in JSON_TYPES:
        json_values = [_json_value(value) for value in values]
        types = JSON_TYPES[parameter.kind.column]
        if all(value is None or isinstance(value, types) for value in json_values):
            return json_values
    return values


def _json_value(text: str | None) -> PartitionValue:
    """Returns the number or truth value that a text writes as JSON; any other text unchanged."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return text
    is_integer = isinstance(value, int) and INT64.min <= value <= INT64.max
    if is_integer or isinstance(value, float):
        return cast(PartitionValue, value)
    return text


def _is_integer(value: str) -> bool:
    """Whether an integer is written as `value`: 7 and -7, but not 007 or 7.0."""
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 19:
        return False
    return str(int(value)) == value and INT64.min <= int(value) <= INT64.max
