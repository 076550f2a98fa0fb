"""row_table.py: cells of one line, and tables that fit 80 columns."""

import io
from array import array

import pytest
from rich.console import Console

from jobs.cli.row_table import CELL_CHARS, Row, cell, row_table

ROW: Row = {
    "id": "mmlu_anatomy/17",
    "status": "ok",
    "text": " a completion of some words that goes on and on and on",
    "finish_reason": "length",
    "completion_tokens": 1024,
    "cumulative_logprob": -1234.5678,
    "loglikelihood": array("d", [-1.25, -5.0]),
    "scored_tokens": array("i", [4, 1]),
    "error_code": None,
}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (1.23456, "1.235"),
        (array("i", [1, 2]), "[1, 2]"),
        ([["a"], [0.5]], "[[a], [0.5]]"),
        (list(range(10)), "[0, 1, 2, 3, 4, 5, 6, 7, … 10 in all]"),
        ("a\nb\x1b", "a\\nb\\x1b"),
        ({"k": 1}, "{'k': 1}"),
        (True, "True"),
        (" Paris", "' Paris'"),
        ("x" * 2 * CELL_CHARS, "x" * (CELL_CHARS - 1) + "…"),
    ],
)
def test_cell_shows_a_value_on_one_line(value: object, text: str) -> None:
    assert cell(value) == text


def test_columns_without_a_value_are_left_out() -> None:
    table = row_table([{"id": "a", "text": None}], ["id", "text"], "run")
    assert [column.header for column in table.columns] == ["id"]


def test_status_is_left_out_where_all_rows_are_ok() -> None:
    names = ["id", "status"]
    rows = [{"id": "a", "status": "ok"}, {"id": "b", "status": "ok"}]
    assert [column.header for column in row_table(rows, names, "run").columns] == ["id"]
    shown = row_table(rows, names, "run", hides_ok=False)
    assert [column.header for column in shown.columns] == names
    rows[1]["status"] = "error"
    assert [column.header for column in row_table(rows, names, "run").columns] == names


def test_table_fits_eighty_columns_with_whole_numbers() -> None:
    stream = io.StringIO()
    table = row_table([ROW], list(ROW), "first rows")
    Console(file=stream, width=80).print(table)
    text = stream.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 80
    for number in ("1024", "-1235"):
        assert f" {number} " in text
    assert "array" not in text
