"""Tables and bytes -> objects that are created once, and the same each time they are made.

It knows no shards and no runs.
"""

from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import ConfigError
from pipeline.storage.redaction import redact_credentials


def to_parquet(table: pa.Table) -> bytes:
    """Returns the table as a Parquet file.

    Equal tables give equal bytes, however they are chunked.
    """
    out = BytesIO()
    pq.write_table(table.unify_dictionaries().combine_chunks(), out, compression="zstd")
    return out.getvalue()


def publish_once(url: str, data: bytes, what: str) -> bool:
    """Creates an object, or finds it as it would be: its time stamp is part of what a run is recognised by when it goes on.

    Args:
        url: of the object.
        data: all of it.
        what: it holds, in words, for the message.

    Returns:
        Whether this call created it.

    Raises:
        ConfigError: an object with other bytes is there.
        DatasetError: it could not be written.
    """
    created = storage.put_if_absent(url, data)
    if not created and storage.read(url)[0] != data:
        raise ConfigError(
            f"{redact_credentials(url)} is there and holds other {what} (another input, other "
            "options, or written by another "
            "version); choose another --output or remove it"
        )
    return created
