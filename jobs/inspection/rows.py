"""Reads rows of a run: all parts in order, filtered by a condition, an id or their status."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from actors.protocol.similar_names import suggestion
from pipeline.errors import ConfigError, DatasetError
from pipeline.input import formats
from pipeline.output.run_folder import RunFolder
from pipeline.synthesis.selection.expressions import ERRORS, Expression

BATCH_ROWS = 1000
Row = dict[str, Any]
Condition = Callable[[Row], bool]


def run_schema(folder: RunFolder) -> pa.Schema:
    """Returns the columns of a run's parts, from the first one.

    Raises:
        DatasetError: no part is committed yet.
    """
    numbers = folder.committed()
    if not numbers:
        raise DatasetError(f"{folder.url}: no part is committed yet; see status")
    with formats.open_parquet(folder.part_url(min(numbers)), client=folder.client) as parquet:
        return parquet.schema_arrow


def read_rows(folder: RunFolder, columns: Sequence[str], condition: Condition) -> Iterator[Row]:
    """Yields the rows of all committed parts that fulfil the condition, in the order of the input.

    Bytes that are not UTF-8 are None.

    Args:
        folder: run folder.
        columns: those that are read; the condition sees no others.
        condition: takes a row.
    """
    for number in sorted(folder.committed()):
        yield from part_rows(folder, number, columns, condition)


def part_rows(
    folder: RunFolder, number: int, columns: Sequence[str], condition: Condition = lambda _: True
) -> Iterator[Row]:
    """Yields the rows of one part, as `read_rows` does."""
    with formats.open_parquet(folder.part_url(number), client=folder.client) as parquet:
        for batch in parquet.iter_batches(BATCH_ROWS, columns=list(columns)):
            table = pa.Table.from_batches([batch])
            values = [formats.python_values(table[name])[0] for name in columns]
            for items in zip(*values, strict=True):
                row = dict(zip(columns, items, strict=True))
                if condition(row):
                    yield row


def first_rows(
    folder: RunFolder, columns: Sequence[str], conditions: Sequence[Condition], limit: int
) -> list[Row]:
    """Returns the first rows that fulfil all conditions."""

    def fulfils_all(row: Row) -> bool:
        return all(condition(row) for condition in conditions)

    return list(islice(read_rows(folder, columns, fulfils_all), limit))


def where(source: str, columns: Sequence[str]) -> tuple[Condition, frozenset[str]]:
    """Returns the condition of `--where`, and the columns that it reads.

    A row for which it cannot be evaluated, such as one without a number, does not fulfil it.

    Raises:
        ConfigError: the text is not an expression, or names an unknown column.
    """
    expression = Expression(source, columns)

    def fulfils(row: Row) -> bool:
        try:
            return expression(row)
        except ERRORS:
            return False

    return fulfils, expression.names


def has_id(row_id: str) -> Condition:
    """Returns the condition that a row has an id: a number is compared by its digits."""
    return lambda row: str(row["id"]) == row_id


def has_failed(row: Row) -> bool:
    """Returns whether a row is an error row."""
    return bool(row["status"] == "error")


def check_columns(names: Sequence[str], columns: Sequence[str]) -> None:
    """Raises ConfigError if the run does not have one of the named columns."""
    for name in names:
        if name not in columns:
            raise ConfigError(f"--columns: {name} is not a column{suggestion(name, columns)}")
