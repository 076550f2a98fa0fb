"""JSON lines: bad lines fail alone, types come from all rows that are read."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.protocol.messages import Completion, RowRef
from pipeline.errors import DatasetError
from pipeline.input.formats.jsonl import READ_BYTES
from pipeline.input.listing import list_input
from pipeline.records import PromptRow
from tests.pipeline.input.input_files import read_all, write_jsonl


def test_jsonl_bad_lines_fail_alone(tmp_path: Path) -> None:
    url = write_jsonl(
        tmp_path / "a.jsonl",
        {"id": "1", "prompt": "one", "n": 2},
        b"{broken",
        b"",
        b'{"id": "3", "prompt": "\xff"}',
        {"id": "4", "prompt": 4},
        b"[1]",
        {"id": "6", "prompt": "\ud800"},
        {"id": "7", "prompt": None},
        {"id": "8"},
    )
    rows, passthrough, _ = read_all(url)
    good = [row for row in rows if isinstance(row, PromptRow)]
    assert [(row.id, row.prompt, row.parameters.get("n")) for row in good] == [
        ("1", "one", 2),
        ("4", 4, None),
        ("6", "\ud800", None),
        ("7", None, None),
        ("8", None, None),
    ]
    failed = [row for row in rows if isinstance(row, Completion)]
    assert [row.error_code for row in failed] == ["invalid_prompt"] * 3
    messages = [str(row.error_message) for row in failed]
    expected = [
        "row 1 .* line 2 .* not JSON",
        "line 4 .* not JSON",
        "line 6 .* but list",
    ]
    for message, pattern in zip(messages, expected, strict=True):
        assert re.search(pattern, message), message
    assert passthrough["id"].to_pylist() == ["1", None, None, "4", None, "6", "7", "8"]


def test_jsonl_types_are_decided_over_all_rows(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"prompt": "p", "int": row, "seen": {"a": row}} for row in range(5000)
    ]
    records[10]["late"] = ["x"]
    records.append({"prompt": "p", "int": 0.5, "seen": {"b": "new"}, "mixed": 1, "empty": {}})
    records.append({"prompt": "p", "mixed": "one", "huge": 2**70})
    write_jsonl(tmp_path / "a.jsonl", *records)
    write_jsonl(tmp_path / "b.jsonl", {"prompt": "q", "only_b": True})
    rows, passthrough, _ = read_all(str(tmp_path), shard_rows=700)
    types = {field.name: field.type for field in passthrough.schema}
    assert types["int"] == pa.float64()
    assert types["late"] == pa.list_(pa.string())
    assert types["seen"] == pa.struct([("a", pa.int64()), ("b", pa.string())])
    assert types["only_b"] == pa.bool_()
    assert passthrough["mixed"].to_pylist()[-3:] == ["1", '"one"', None]
    assert passthrough["empty"].to_pylist()[-3:] == ["{}", None, None]
    assert passthrough["huge"].to_pylist()[-2:] == [str(2**70), None]
    assert len(rows) == 5003
    pq.write_table(passthrough, tmp_path / "out")


def test_jsonl_limit_reads_types_of_first_rows_only(tmp_path: Path) -> None:
    url = write_jsonl(
        tmp_path / "a.jsonl",
        {"prompt": "a", "x": 1},
        {"prompt": "b", "x": 2},
        {"prompt": "c", "x": "text"},
    )
    rows, passthrough, _ = read_all(url, limit=2)
    assert len(rows) == 2
    assert passthrough["x"].type == pa.int64()


def test_jsonl_line_nested_too_deep_fails_alone(tmp_path: Path) -> None:
    url = write_jsonl(tmp_path / "a.jsonl", {"prompt": "a"}, b"[" * 100_000, {"prompt": "b"})
    rows, _, _ = read_all(url)
    assert [isinstance(row, Completion) for row in rows] == [False, True, False]
    assert "nested more deeply than Python reads" in str(rows[1])


def test_jsonl_line_with_a_very_long_integer_fails_alone(tmp_path: Path) -> None:
    integer = b'{"prompt": "a", "x": %s}' % (b"9" * 5000)
    url = write_jsonl(tmp_path / "a.jsonl", {"prompt": "a"}, integer)
    rows, _, _ = read_all(url)
    assert [isinstance(row, Completion) for row in rows] == [False, True]
    assert "line 2 of" in str(rows[1])
    assert "has an integer of more than 4,300 digits" in str(rows[1])


def test_jsonl_faults_name_the_row_within_the_file(tmp_path: Path) -> None:
    url = write_jsonl(tmp_path / "a.jsonl", *[{"prompt": "a"}] * 5, b"{", {"prompt": "b"})
    rows, _, _ = read_all(url, shard_rows=4)
    failed = rows[5]
    assert isinstance(failed, Completion)
    assert failed.ref == RowRef(1, 1)
    assert str(failed.error_message).startswith(f"row 5 of {url}: line 6 of {url} is not JSON")


def prompts(url: str) -> list[object]:
    return [row.prompt for row in read_all(url)[0] if isinstance(row, PromptRow)]


@pytest.mark.parametrize("indent", [None, 2])
def test_json_array_has_one_row_per_object(tmp_path: Path, indent: int | None) -> None:
    rows = [{"id": number, "prompt": f"[{{}}, {number}é"} for number in range(7)]
    path = tmp_path / "a.json"
    path.write_text("\ufeff\n " + json.dumps(rows, indent=indent) + "\n", encoding="utf-8")
    assert prompts(str(path)) == [row["prompt"] for row in rows]
    _, passthrough, _ = read_all(str(path))
    assert passthrough["id"].to_pylist() == list(range(7))


def test_json_array_is_read_across_the_borders_of_reads(tmp_path: Path) -> None:
    rows = [{"prompt": "x" * length} for length in (10, READ_BYTES, 5, 3 * READ_BYTES, 7)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    assert prompts(str(path)) == [row["prompt"] for row in rows]


def test_json_array_item_that_is_no_object_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"prompt": "a"}, 12, {"prompt": "b"}]')
    rows, _, _ = read_all(str(path))
    (failed,) = [row for row in rows if isinstance(row, Completion)]
    assert "item 2 of" in str(failed.error_message)
    assert prompts(str(path)) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"prompt": "a"}', r"a\.json is not a readable JSON array: expected ',', got ''"),
        ('[{"prompt": "a"} {"prompt": "b"}]', r"expected ',', got '\{'"),
        ('[{"prompt": "a"},]', "item 2: "),
        ('[{"prompt": "a"}] x', r"expected the end of the file after ']', got 'x'"),
        ('[{"prompt": "a]', "item 1: "),
        ('{"prompt":\n"a"}\n', "a JSON document over several lines"),
        ('{\n"prompt": "a"\n}\n', "a JSON document over several lines"),
        ("[]", "has no rows"),
        ("", "has no rows"),
    ],
)
def test_json_document_without_rows_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        list_input(str(tmp_path))


def test_json_file_may_have_one_object_per_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('\n{"prompt": "a"}\nnot json\n{"prompt": "b"}\n')
    assert prompts(str(tmp_path / "a.json")) == ["a", "b"]


def test_jsonl_document_over_several_lines_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{\n"prompt": "a"\n}\n')
    with pytest.raises(DatasetError, match=r"a\.jsonl is a JSON document over several lines"):
        list_input(str(tmp_path))


def test_jsonl_without_any_readable_row_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "a"}\r{"prompt": "b"}\r')
    with pytest.raises(DatasetError, match=r"no row of the input can be read: line 1 of .*Extra"):
        read_all(str(tmp_path))
