"""Arrow IPC, as files (Feather) and as streams (the .arrow files of Hugging Face Datasets).

Batches are read from the first to the last: only the columns that are needed are decoded.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.ipc as ipc

from pipeline import storage
from pipeline.input.file_columns import FileColumns
from pipeline.input.formats.arrow_columns import (
    column_types,
    damage_explained,
    united_columns,
)
from pipeline.input.formats.batches import BatchCursor
from pipeline.input.formats.format import FileSummary, SourceFile, open_source
from pipeline.records import InputFile

FILE_SIGNATURE = b"ARROW1"
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


class ArrowIpc:
    """The format of .arrow and .feather files."""

    name = "Arrow IPC"
    suffixes = (".arrow", ".arrows", ".feather", ".ipc")
    is_compressible = False

    def inspect(self, source: SourceFile, limit: int | None, client: storage.Client) -> FileSummary:
        """Reads the batches, but of a file only their headers; `limit` saves nothing."""
        with self._open(source, client) as opened:
            rows = 0
            if _is_file(opened):
                reader: Any = ipc.open_file(cast(Any, opened))
                rows = int(reader.count_rows())
                schema = reader.schema
            else:
                stream = ipc.open_stream(cast(Any, opened))
                schema = stream.schema
                for batch in stream:
                    rows += batch.num_rows
                _check_end(opened)
            return FileSummary(rows, column_types(schema, source.url))

    def file_columns(self, files: Sequence[InputFile]) -> FileColumns:
        """Returns the columns in the order of the first file; the order of others may differ."""
        return united_columns(files)

    @contextmanager
    def open_cursor(
        self,
        source: SourceFile,
        inputs: Sequence[str],
        passthrough: pa.Schema,
        client: storage.Client,
    ) -> Iterator[BatchCursor]:
        """Opens the file for one pass over its batches."""
        columns = frozenset([*inputs, *passthrough.names])
        with self._open(source, client) as opened:
            batches = _batches(opened, columns)
            yield BatchCursor(source.url, batches, inputs, passthrough)

    @contextmanager
    def _open(self, source: SourceFile, client: storage.Client) -> Iterator[BinaryIO]:
        with (
            open_source(source, client, sequential=True) as opened,
            damage_explained(source.url, self.name),
        ):
            yield opened


ARROW_IPC = ArrowIpc()


def _is_file(opened: BinaryIO) -> bool:
    """Whether the batches have an index at the end; a stream has none."""
    signature = opened.read(len(FILE_SIGNATURE))
    opened.seek(0)
    return signature == FILE_SIGNATURE


def _check_end(opened: BinaryIO) -> None:
    """Rejects a stream that is cut off between two batches, which Arrow takes for its end."""
    opened.seek(0, io.SEEK_END)
    opened.seek(max(0, opened.tell() - len(END_OF_STREAM)))
    if opened.read() != END_OF_STREAM:
        raise pa.ArrowInvalid("the stream has no end, it is cut off")


def _batches(opened: BinaryIO, columns: frozenset[str]) -> Iterator[pa.RecordBatch]:
    is_file = _is_file(opened)
    if is_file:
        schema = ipc.open_file(cast(Any, opened)).schema
    else:
        schema = ipc.open_stream(cast(Any, opened)).schema
    opened.seek(0)

    indices = [index for index, name in enumerate(schema.names) if name in columns]
    options = ipc.IpcReadOptions(included_fields=indices)
    if not is_file:
        yield from ipc.open_stream(cast(Any, opened), options=options)
        return
    reader = ipc.open_file(cast(Any, opened), options=options)
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index)
