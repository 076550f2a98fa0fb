"""Objects that are created once and have the same bytes each time they are made."""

from collections.abc import Mapping
from io import BytesIO
from types import MappingProxyType

import pyarrow as pa
import pyarrow.parquet as pq

from actors.protocol.plain_text import bare
from pipeline import storage
from pipeline.errors import ConfigError


def to_parquet(table: pa.Table, footer: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """Returns the table as a Parquet file.

    Equal tables give equal bytes, however they are chunked.

    Args:
        table: with the metadata of its schema.
        footer: further metadata of the file, which is not part of the schema that readers return.
    """
    combined = table.unify_dictionaries().combine_chunks()
    out = BytesIO()
    with pq.ParquetWriter(out, combined.schema, compression="zstd") as writer:
        writer.write_table(combined)
        if footer:
            writer.add_key_value_metadata(dict(footer))
    return out.getvalue()


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
