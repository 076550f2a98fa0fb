import re
from pathlib import Path

import pyarrow as pa
import pytest

from actors.protocol.messages import Completion
from pipeline.errors import DatasetError
from pipeline.input.listing import list_input
from pipeline.records import PromptRow
from tests.pipeline.input.input_files import read_all


def prompts(rows: list[PromptRow | Completion]) -> list[object]:
    return [row.prompt for row in rows if isinstance(row, PromptRow)]


def test_columns_are_strings_and_empty_values_null(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeffid,prompt,zip\n007,2 + 3 =,01234\n8,12,\n")
    rows, passthrough, _ = read_all(str(path))
    assert prompts(rows) == ["2 + 3 =", "12"]
    assert passthrough.to_pydict() == {"id": ["007", "8"], "zip": ["01234", None]}
    assert passthrough.schema.types == [pa.string(), pa.string()]


def test_parameters_token_ids_and_choices_are_json(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "prompt_token_ids,max_tokens,temperature,ignore_eos,stop\n"
        '"[5, 6]",8,0.5,True,"[""a"", ""b""]"\n'
        '"[7]",,1,false,5\n'
    )
    rows, _, _ = read_all(str(path))
    first, second = rows
    assert isinstance(first, PromptRow)
    assert isinstance(second, PromptRow)
    assert first.prompt_token_ids == [5, 6]
    assert first.parameters == {
        "max_tokens": 8,
        "temperature": 0.5,
        "ignore_eos": True,
        "stop": ["a", "b"],
    }
    assert second.parameters == {"temperature": 1, "ignore_eos": False, "stop": "5"}


def test_values_may_have_delimiters_quotes_and_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(
        b'id,prompt\r\n1,"a, ""b""\r\nc"\r\n\r\n2,"' + b"x" * 200_000 + b'"\r\n'
    )
    rows, _, _ = read_all(str(tmp_path / "a.csv"))
    assert prompts(rows) == ['a, "b"\r\nc', "x" * 200_000]
    (tmp_path / "a.tsv").write_text("id\tprompt\n1\ta, b\n")
    assert prompts(read_all(str(tmp_path / "a.tsv"))[0]) == ["a, b"]


def test_unreadable_row_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,prompt\na,x\nb\nc,x,y\nd,\xff\ne,z\n")
    rows, _, _ = read_all(str(path))
    assert prompts(rows) == ["x", "z"]
    messages = [str(row.error_message) for row in rows if isinstance(row, Completion)]
    one_value, three_values, not_utf8 = messages
    assert re.search(r"line 3 of .*a\.csv has 1 values, expected 2", one_value)
    assert "has 3 values, expected 2" in three_values
    assert "column 'prompt' is not valid UTF-8" in not_utf8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'id,prompt\n1,"never closed\n2,x\n', r"a\.csv is not readable CSV at line 3"),
        (b"id,prompt,id\n1,x,2\n", "more than one column 'id'"),
        (b"id,pr\xffmpt\n1,x\n", "name of column 2 is not valid UTF-8"),
        (b"id,prompt\n", "has no rows"),
        ("id,prompt\n1,x\n".encode("utf-16"), "UTF-16 text, convert it to UTF-8"),
    ],
)
def test_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        list_input(str(tmp_path))
