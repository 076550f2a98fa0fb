"""JSON lines, one object per line; and JSON files, which may also hold one array of objects.

Blank lines are not rows.
"""

import codecs
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from actors.protocol.plain_text import bare
from pipeline.errors import DatasetError
from pipeline.input.formats.compression import without_compression
from pipeline.input.formats.record_format import RecordFormat
from pipeline.input.limits import MAX_LINE_BYTES

READ_BYTES = 2**20
DOCUMENT_SUFFIX = ".json"
LONG_INTEGER = "integer string conversion"  # of Python's message
BYTE_ORDER_MARK = codecs.BOM_UTF8


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file; numbers count from 1."""

    number: int
    text: bytes
    is_complete: bool = True  # otherwise it has more than MAX_LINE_BYTES, and is skipped


@dataclass(frozen=True, slots=True)
class Item:
    """An item of an array; numbers count from 1."""

    number: int
    value: Any
    chars: int = 0  # of its text


class JsonSyntax:
    """One object per line or, in a .json file that begins with `[`, one array of objects."""

    def records(self, stream: io.BufferedReader, url: str) -> Iterator[Line | Item]:
        """Yields lines, or the items of the array.

        Raises:
            DatasetError: the file has neither one object per line nor an array of objects.
        """
        is_document = without_compression(url).endswith(DOCUMENT_SUFFIX)
        if is_document and _first_byte(stream) == b"[":
            return _items(stream, url)
        return _lines(stream, url, is_document=is_document)

    def parse(self, record: Line | Item, url: str) -> dict[str, Any] | str:
        """Returns the object of a line or an item, or what is wrong with it."""
        if isinstance(record, Item):
            value = record.value
            location = f"item {record.number} of {bare(url)}"
        else:
            location = f"line {record.number} of {bare(url)}"
            if not record.is_complete:
                return f"{location} has more than the {MAX_LINE_BYTES:,} bytes that one may have"
            try:
                value = json.loads(record.text)
            except RecursionError:
                return f"{location} has values nested more deeply than Python reads"
            except ValueError as error:
                if LONG_INTEGER in str(error):
                    return f"{location} has an integer of more than 4,300 digits"
                return f"{location} is not JSON: {error}"
        if isinstance(value, dict):
            return value
        return f"{location} is not a JSON object but {type(value).__name__}"

    def size(self, record: Line | Item) -> int:
        """Returns the bytes of a line, or the characters of an item."""
        if isinstance(record, Item):
            return record.chars
        return len(record.text)


JSON_LINES = RecordFormat("JSON lines", (".jsonl", ".ndjson", DOCUMENT_SUFFIX), JsonSyntax())


def _lines(stream: io.BufferedReader, url: str, *, is_document: bool) -> Iterator[Line]:
    """Yields the lines that are not blank."""
    is_first = True
    number = 0
    while text := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(text) > MAX_LINE_BYTES:
            _skip_line(stream, text)
            yield Line(number, b"", is_complete=False)
            continue
        if text.isspace():
            continue
        if is_first:
            _check_first_line(text, url, is_document=is_document)
            is_first = False
        yield Line(number, text)


def _skip_line(stream: io.BufferedReader, text: bytes) -> None:
    """Reads to the end of a line of which `text` is the beginning."""
    while text and not text.endswith(b"\n"):
        text = stream.readline(READ_BYTES)


def _check_first_line(text: bytes, url: str, *, is_document: bool) -> None:
    """Rejects a JSON document that is spread over lines: none of its lines is a row."""
    is_spread = text.removeprefix(BYTE_ORDER_MARK).strip() in (b"{", b"[")
    if is_document and not is_spread:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            is_spread = True
    if not is_spread:
        return
    raise DatasetError(
        f"{bare(url)} is a JSON document over several lines, expected one object per "
        "line, or an array of objects in a .json file; convert it or leave it out"
    )


def _first_byte(stream: io.BufferedReader) -> bytes:
    """Returns the first byte that is not white space, as far as the buffer has it."""
    head = stream.peek(READ_BYTES)
    return head.removeprefix(BYTE_ORDER_MARK).lstrip()[:1]


def _items(stream: io.BufferedReader, url: str) -> Iterator[Item]:
    """Yields the items of an array; holds one item and one read in memory.

    Raises:
        DatasetError: the array is not valid JSON.
    """
    array = _ArrayReader(stream, url)
    array.expect("[")
    number = 0
    if array.next_character() == "]":
        array.expect("]")
        array.expect_end()
        return
    while True:
        number += 1
        value = array.next_value(number)
        yield Item(number, value, array.value_chars)
        if array.next_character() == "]":
            array.expect("]")
            array.expect_end()
            return
        array.expect(",")


class _ArrayReader:
    """Decodes JSON values one after another from a stream."""

    def __init__(self, stream: io.BufferedReader, url: str) -> None:
        self._stream = stream
        self._url = url
        self._decode_bytes = codecs.getincrementaldecoder("utf-8-sig")()
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._position = 0
        self._is_at_end = False
        self.value_chars = 0  # of the last value

    def next_character(self) -> str:
        """Returns the next character that is not white space, without consuming it."""
        while True:
            while self._position < len(self._text):
                character = self._text[self._position]
                if not character.isspace():
                    return character
                self._position += 1
            if not self._read():
                return ""

    def expect(self, character: str) -> None:
        """Consumes `character`."""
        present = self.next_character()
        if present != character:
            raise self._error(f"expected {character!r}, got {present!r}")
        self._position += 1

    def expect_end(self) -> None:
        """Rejects text after the array."""
        present = self.next_character()
        if present:
            raise self._error(f"expected the end of the file after ']', got {present!r}")

    def next_value(self, number: int) -> Any:
        """Consumes a value, and returns it. A value at the end of the buffer may go on."""
        self.next_character()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._position)
            except (ValueError, RecursionError) as error:
                if not self._read():
                    raise self._error(f"item {number}: {error}") from error
                continue
            if end == len(self._text) and self._read():
                continue
            self.value_chars = end - self._position
            self._position = end
            return value

    def _read(self) -> bool:
        """Reads on; returns False at the end. Reads more, the longer the text that is kept."""
        if self._is_at_end:
            return False
        kept = self._text[self._position :]
        if len(kept) > MAX_LINE_BYTES:
            raise self._error(f"expected at most {MAX_LINE_BYTES:,} characters of an item")
        data = self._stream.read(max(READ_BYTES, len(kept)))
        self._is_at_end = not data
        try:
            added = self._decode_bytes.decode(data, final=self._is_at_end)
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8 ({error.reason})") from error
        if self._is_at_end:
            return False
        self._text = kept + added
        self._position = 0
        return True

    def _error(self, reason: str) -> DatasetError:
        return DatasetError(
            f"{bare(self._url)} is not a readable JSON array: {reason}; write it "
            "again or leave it out"
        )
