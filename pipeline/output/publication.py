"""Objects that are created once and have the same bytes each time they are made."""

from collections.abc import Iterator, Mapping
from enum import Enum
from io import BytesIO
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.protocol.plain_text import bare
from pipeline import storage
from pipeline.errors import ConfigError


class Encoding(Enum):
    """How the values of a column are stored, ahead of compression.

    A column with an encoding has no dictionary: its values hardly repeat.
    """

    DEFAULT = "DICTIONARY"  # as pyarrow chooses
    PLAIN = "PLAIN"
    BYTE_STREAM_SPLIT = "BYTE_STREAM_SPLIT"  # first bytes of all numbers, then their second ones


def to_parquet(
    table: pa.Table,
    footer: Mapping[str, str] = MappingProxyType({}),
    encodings: Mapping[str, Encoding] = MappingProxyType({}),
) -> bytes:
    """Returns the table as a Parquet file.

    Equal tables give equal bytes, however they are chunked.

    Args:
        table: with the metadata of its schema.
        footer: further metadata of the file, which is not part of the schema that readers return.
        encodings: of columns, by name; the others are written as pyarrow chooses.
    """
    combined = table.unify_dictionaries().combine_chunks()
    out = BytesIO()
    options = writer_options(combined.schema, encodings)
    with pq.ParquetWriter(out, combined.schema, compression="zstd", **options) as writer:
        writer.write_table(combined)
        if footer:
            writer.add_key_value_metadata(dict(footer))
    return out.getvalue()


def writer_options(schema: pa.Schema, encodings: Mapping[str, Encoding]) -> dict[str, Any]:
    """Returns the arguments of `pq.ParquetWriter` for columns that have an encoding.

    Args:
        schema: of the file.
        encodings: by name of the column; columns of `DEFAULT` may be left out.
    """
    encoded: dict[str, str] = {}
    dictionary: list[str] = []
    for field in schema:
        encoding = encodings.get(field.name, Encoding.DEFAULT)
        for path in _leaf_paths(field.name, field.type):
            if encoding is Encoding.DEFAULT:
                dictionary.append(path)
            else:
                encoded[path] = encoding.value
    if not encoded:
        return {}
    return {"use_dictionary": dictionary, "column_encoding": encoded}


def _leaf_paths(path: str, column_type: pa.DataType) -> Iterator[str]:
    """Yields the paths of a column's values in Parquet."""
    data_type: Any = column_type
    if isinstance(column_type, pa.BaseExtensionType):
        yield from _leaf_paths(path, data_type.storage_type)
    elif pa.types.is_struct(column_type):
        for field in data_type:
            yield from _leaf_paths(f"{path}.{field.name}", field.type)
    elif pa.types.is_map(column_type):
        yield from _leaf_paths(f"{path}.key_value.key", data_type.key_type)
        yield from _leaf_paths(f"{path}.key_value.value", data_type.item_type)
    elif pa.types.is_nested(column_type):
        yield from _leaf_paths(f"{path}.list.element", data_type.value_type)
    else:
        yield path


def publish_once(url: str, data: bytes, content: str) -> bool:
    """Creates an object, or checks that it is there with the same bytes.

    An object that is there is not written again: a resumed run is recognised by its time stamp.

    Args:
        url: of the object.
        data: all of it.
        content: what the object holds, for the message.

    Returns:
        Whether this call created it.

    Raises:
        ConfigError: an object with other bytes is there.
        DatasetError: it could not be written.
    """
    created = storage.put_if_absent(url, data)
    if not created and storage.read(url)[0] != data:
        raise ConfigError(
            f"{bare(url)} is there and holds other {content} (another input, other "
            "options, or written by another version); choose another --output or remove it"
        )
    return created
