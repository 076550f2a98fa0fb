"""What the footer of a part has about its input rows, so that later runs can copy them.

row_digests   digests of the input rows in base64, in their order; zeros for a row without one
copied_rows   number of input rows that were copied from older runs
copied_from   JSON: the folders of these runs
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.output.provenance import join_metadata
from pipeline.records import DIGEST_BYTES, OlderRows
from pipeline.storage.redaction import redact_credentials

ROW_DIGESTS = "row_digests"
COPIED_ROWS = "copied_rows"
COPIED_FROM = "copied_from"
# Of a part with digests: readers of Parquet limit strings in a footer, pyarrow to 100 MB.
MAX_DIGESTED_ROWS = 1_000_000
Digests = npt.NDArray[np.bytes_]
# NumPy's bytes compare without the zeros at their end, so that no digest is the empty one.
DIGEST_TYPE = np.dtype(f"S{DIGEST_BYTES}")
NO_DIGEST = b""


def digests_metadata(digests: bytes | bytearray) -> dict[str, str]:
    """Returns the entry of the footer with the digests of a part.

    There is none if all of them are zeros, or for more than `MAX_DIGESTED_ROWS` rows.
    """
    if not any(digests) or len(digests) > DIGEST_BYTES * MAX_DIGESTED_ROWS:
        return {}
    return {ROW_DIGESTS: base64.b64encode(digests).decode()}


def read_digests(footer: Mapping[str, str]) -> Digests | None:
    """Returns the digests of the input rows of a part; None if it has none that can be read."""
    text = footer.get(ROW_DIGESTS)
    if text is None:
        return None
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), DIGEST_TYPE)
    except (binascii.Error, ValueError):
        return None


def merged_footer(
    stored: Mapping[str, str], rerun: Mapping[str, str], digests: bytes
) -> dict[str, str]:
    """Returns the footer of a part some of whose rows ran again.

    Args:
        stored: footer of the part.
        rerun: what computed the rows that ran again.
        digests: of all input rows of the part; zeros for a row that did not run again.
    """
    metadata = join_metadata([stored, rerun])
    for name in (COPIED_ROWS, COPIED_FROM):
        if name in stored:
            metadata[name] = stored[name]

    merged = np.frombuffer(digests, DIGEST_TYPE).copy()
    stored_digests = read_digests(stored)
    if stored_digests is not None and stored_digests.size == merged.size:
        is_missing = merged == NO_DIGEST
        merged[is_missing] = stored_digests[is_missing]
    if metadata:
        metadata |= digests_metadata(merged.tobytes())
    return metadata


def with_copied_rows(footer: Mapping[str, str], older: OlderRows) -> dict[str, str]:
    """Returns the footer of a part with rows of older runs: what computed any of its rows."""
    metadata = join_metadata([footer, *older.footers])
    metadata[COPIED_ROWS] = str(older.samples.size)
    metadata[COPIED_FROM] = json.dumps([redact_credentials(url) for url in older.runs])
    return metadata


def copied_row_count(footer: Mapping[str, str]) -> int:
    """Returns how many input rows of a part were copied."""
    text: Any = footer.get(COPIED_ROWS, "0")
    return int(text) if text.isdecimal() else 0
