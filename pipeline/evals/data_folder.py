"""Rows of data sets in the layout of the Hugging Face hub, below a folder or URL.

    <folder>/<data set>/<configuration>/<split>-00000-of-00001.parquet    one or several per split

Does not depend on tasks. Splits are cached: a suite reads the same rows for each of its tasks.
"""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from actors.protocol.plain_text import bare, quoted
from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.evals.tables import missing_columns
from pipeline.input import formats
from pipeline.storage.redaction import redact_credentials


class DataFolder:
    """Data sets below one URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._rows: dict[tuple[str, str, tuple[str, ...]], list[dict[str, Any]]] = {}

    @cached_property
    def _listing(self) -> tuple[str, ...]:
        return tuple(stored.url for stored in storage.list_objects(self.url))

    def rows(self, folder: str, split: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Returns the rows of a split, its files in order of their names.

        Args:
            folder: data set and configuration, such as `gsm8k/main`.
            split: such as `test`.
            columns: names that are needed; others are not read.

        Raises:
            DatasetError: no such files, a column is missing, or a value is null.
        """
        key = (folder, split, tuple(columns))
        if key not in self._rows:
            files = self._files(folder, split)
            rows: list[dict[str, Any]] = []
            for url in files:
                rows += self._read(url, columns)
            self._rows[key] = rows
        return self._rows[key]

    def has_split(self, folder: str, split: str) -> bool:
        """Returns whether there are files of a split."""
        return any(self._split_urls(folder, split))

    def json_lines(self, path: str, columns: Sequence[str]) -> list[dict[str, str]]:
        """Returns the objects of a JSON-lines file below the folder.

        Args:
            path: of the file, within the folder.
            columns: keys that are needed, each with a text as its value.

        Raises:
            DatasetError: no such file, or a line is not an object with these texts.
        """
        url = storage.join(self.url, path)
        rows = []
        for number, line in enumerate(storage.read(url)[0].splitlines(), start=1):
            try:
                row = json.loads(line)
                rows.append({name: _text(row[name]) for name in columns})
            except (ValueError, KeyError, TypeError) as error:
                raise DatasetError(
                    f"line {number} of {bare(url)}: expected a JSON object with "
                    f"texts {list(columns)} ({quoted(error)})"
                ) from error
        return rows

    def _files(self, folder: str, split: str) -> list[str]:
        urls = sorted(self._split_urls(folder, split))
        if not urls:
            data_url = redact_credentials(self.url).rstrip("/")
            raise DatasetError(
                f"no {data_url}/{folder}/{split}-*.parquet; --data must hold the data sets in "
                "the layout of the Hugging Face hub: see docs/evaluation.md"
            )
        return urls

    def _split_urls(self, folder: str, split: str) -> Iterator[str]:
        prefix = f"{storage.canonical(self.url)}/{folder}/{split}-"
        for url in self._listing:
            if url.startswith(prefix) and url.endswith(".parquet"):
                yield url

    def _read(self, url: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        with formats.open_parquet(url) as parquet:
            missing = missing_columns(parquet.schema_arrow, columns)
            if missing:
                raise DatasetError(
                    f"{bare(url)}: no column {missing}, found {parquet.schema_arrow.names}"
                )
            table = parquet.read(list(columns))
        for name in columns:
            if table[name].null_count:
                raise DatasetError(
                    f"{bare(url)}: column '{name}' has {table[name].null_count} null values"
                )
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{quoted(value)} is not a text")
    return value
