"""record_format.py: records in ranges, records that do not parse, and files that are not text."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input.formats.format import SourceFile
from pipeline.input.formats.jsonl import JSON_LINES
from pipeline.input.formats.record_format import SIGNATURES, RecordCursor
from pipeline.input.limits import MAX_LINE_BYTES, MAX_VALUE_BYTES

PASSTHROUGH = pa.schema([("n", pa.int64())])


class Words:
    """Records are words; `broken` does not parse, and `text-5` has a value of another type."""

    def records(self, stream: Any, url: str) -> Any:
        return iter(stream.read().decode().split())

    def parse(self, record: str, url: str) -> dict[str, Any] | str:
        if record == "broken":
            return f"{url}: a broken record"
        name, _, number = record.partition("-")
        if name == "text":
            return {"prompt": name, "n": number}
        return {"prompt": name, "n": int(number)}

    def size(self, record: str) -> int:
        if record.startswith("long"):
            return MAX_VALUE_BYTES + 1
        return len(record)


def cursor(*records: str) -> RecordCursor:
    return RecordCursor(Words(), "in.words", iter(records), ["prompt", "stop"], PASSTHROUGH)


def test_ranges_skip_records_without_parsing_them() -> None:
    reader = cursor("a-0", "b-x", "c-2", "d-x", "e-4")  # b and d cannot be parsed
    assert reader.take(0, 1).values == {"prompt": ["a"], "stop": [None]}
    assert reader.take(2, 1).passthrough.to_pydict() == {"n": [2]}
    assert reader.take(4, 1).values["prompt"] == ["e"]


def test_range_beyond_the_last_record_is_an_error() -> None:
    with pytest.raises(DatasetError, match=r"in\.words has fewer than the 3 rows that it had"):
        cursor("a-0", "b-1").take(1, 2)


def test_records_that_do_not_fit_are_faults_of_their_rows() -> None:
    rows = cursor("a-0", "broken", "text-5").take(0, 3)
    assert rows.values["prompt"] == ["a", None, "text"]
    assert rows.passthrough["n"].to_pylist() == [0, None, None]
    assert rows.faults[1] == "in.words: a broken record"
    assert "column 'n' is not int64" in rows.faults[2]


@pytest.mark.parametrize("signature", SIGNATURES)
def test_file_with_the_signature_of_another_format_is_refused(
    signature: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(signature + b'{"prompt": "a"}\n')
    content = SIGNATURES[signature].split(",", maxsplit=1)[0]
    with pytest.raises(DatasetError, match=rf"in\.jsonl is {content}, .* or leave it out"):
        JSON_LINES.inspect(SourceFile(str(path)), None, storage.DEFAULT_CLIENT)


def test_file_with_zero_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes('{"prompt": "a"}\n'.encode("utf-16-be"))
    with pytest.raises(DatasetError, match=r"zero bytes at its beginning, expected UTF-8 text"):
        JSON_LINES.inspect(SourceFile(str(path)), None, storage.DEFAULT_CLIENT)


def test_record_beyond_the_limit_fails_and_keeps_short_values() -> None:
    rows = cursor("a-1", "long-2", "b-3").take(0, 3)
    assert rows.faults.keys() == {1}
    assert "more than the 67,108,864 that one may have" in rows.faults[1]
    assert rows.passthrough["n"].to_pylist() == [1, 2, 3]


def test_line_beyond_the_limit_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"prompt": "a"}\n{"prompt": "')
        file.write(b"x" * MAX_LINE_BYTES)
        file.write(b'"}\n{"prompt": "b"}\n')
    source = SourceFile(str(path))
    client = storage.DEFAULT_CLIENT
    assert JSON_LINES.inspect(source, None, client).rows == 3
    with JSON_LINES.open_cursor(source, ["prompt"], pa.schema([]), client) as lines:
        rows = lines.take(0, 3)
    assert rows.values == {"prompt": ["a", None, "b"]}
    assert "line 2 of" in rows.faults[1]
    assert "bytes that one may have" in rows.faults[1]
