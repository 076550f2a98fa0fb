"""Stage `partition`: rejects rows whose values cannot be the name of a folder."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from actors.protocol.plain_text import quoted
from pipeline.errors import ConfigError
from pipeline.synthesis.rejections import Rejection
from pipeline.synthesis.selection.samples import StageResult

MAX_VALUE_BYTES = 200  # of a partition value in a path
NULL_SEGMENT = "__HIVE_DEFAULT_PARTITION__"
NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def check_partitions(columns: Sequence[str], schema: pa.Schema) -> None:
    """Checks that rows can be put into folders by these columns.

    Raises:
        ConfigError: no such column, a name that a folder cannot have, or a type other than string,
            integer and boolean.
    """
    for name in columns:
        if name not in schema.names:
            raise ConfigError(
                f"--partition-by: the data set has no column {quoted(name)}; it has "
                f"{', '.join(schema.names)}"
            )
        column_type: Any = schema.field(name).type
        if not _is_partition_type(column_type):
            raise ConfigError(
                f"--partition-by: {name}: expected a column of strings, integers or booleans, got "
                f"{column_type}"
            )
        if not NAME_CHARACTERS.issuperset(name):
            raise ConfigError(
                f"--partition-by: {quoted(name)}: a folder's name holds letters, digits and _ "
                "only; rename the column"
            )


class Partitions:
    """The stage."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = tuple(columns)

    def __call__(self, table: pa.Table) -> StageResult:
        """Returns a verdict on every sample."""
        verdicts: list[Rejection | None] = [None] * table.num_rows
        for name in self._columns:
            for position, value in enumerate(table[name].to_pylist()):
                fault = _fault(value)
                if fault is not None:
                    verdicts[position] = Rejection("partition", f"no folder name: {name}", fault)
        return StageResult(table, verdicts)


def segment(value: object) -> str:
    """Returns a value as a part of a path.

    Everything but letters, digits and `_.-~` is percent-encoded.
    """
    if value is None:
        return NULL_SEGMENT
    text = str(value)
    if isinstance(value, bool):
        text = text.lower()
    return quote(text, safe="")


def _fault(value: object) -> str | None:
    if value == "":
        return "empty"
    if value is not None and len(segment(value)) > MAX_VALUE_BYTES:
        return "too long"
    return None


def _is_partition_type(column_type: Any) -> bool:
    return bool(
        pa.types.is_string(column_type)
        or pa.types.is_large_string(column_type)
        or pa.types.is_integer(column_type)
        or pa.types.is_boolean(column_type)
    )
