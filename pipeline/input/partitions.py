"""Columns that the names of folders give: `subject=math/part-0.parquet`, as Hive and Spark write.

A column holds integers if the values of all files are plain integers, otherwise strings. Files
outside of such folders, and `__HIVE_DEFAULT_PARTITION__`, have null.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from actors.protocol.plain_text import bare
from pipeline.errors import DatasetError
from pipeline.input.file_columns import FileColumns
from pipeline.records import InputFile, Partition, Shard

NULL_VALUE = "__HIVE_DEFAULT_PARTITION__"
INT64 = np.iinfo(np.int64)


def is_partition(folder: str) -> bool:
    """Whether the name of a folder gives a column."""
    return folder.partition("=")[0] != "" and "=" in folder


def partitions(paths: Iterable[str]) -> list[Partition]:
    """Returns the columns of each path, which begins below the input folder.

    Raises:
        DatasetError: a path gives one column twice.
    """
    texts = [_partition_texts(path) for path in paths]
    columns: dict[str, Sequence[str | int | None]] = {}
    for name in _names(texts):
        columns[name] = _typed([row.get(name) for row in texts])
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


def _typed(values: Sequence[str | None]) -> Sequence[str | int | None]:
    """Returns values as integers, if that is what all of them are."""
    integers: list[int | None] = []
    for value in values:
        if value is None:
            integers.append(None)
        elif _is_integer(value):
            integers.append(int(value))
        else:
            return values
    return integers


def _is_integer(value: str) -> bool:
    """Whether an integer is written as `value`: 7 and -7, but not 007 or 7.0."""
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 19:
        return False
    return str(int(value)) == value and INT64.min <= int(value) <= INT64.max
