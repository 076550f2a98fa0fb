"""pipeline/output/reuse/footer.py: digests and sources of rows in the footer of a part."""

import json

import numpy as np
import pyarrow as pa

from pipeline.output.provenance import DEVICE_KIND
from pipeline.output.reuse.footer import (
    COPIED_FROM,
    COPIED_ROWS,
    MAX_DIGESTED_ROWS,
    ROW_DIGESTS,
    copied_row_count,
    digests_metadata,
    merged_footer,
    read_digests,
    with_copied_rows,
)
from pipeline.records import OlderRows

FIRST = bytes(range(16))
SECOND = bytes(range(1, 16)) + b"\0"  # ends in a zero
NONE = bytes(16)


def test_digests_are_read_as_they_were_written() -> None:
    digests = read_digests(digests_metadata(FIRST + NONE + SECOND))
    assert digests is not None
    assert digests.tobytes() == FIRST + NONE + SECOND
    assert digests_metadata(NONE) == {}
    assert digests_metadata(FIRST * (MAX_DIGESTED_ROWS + 1)) == {}


def test_damaged_digests_count_as_none() -> None:
    assert read_digests({}) is None
    assert read_digests({ROW_DIGESTS: "no base64!"}) is None
    assert read_digests({ROW_DIGESTS: "QUJD"}) is None  # three bytes


def test_merged_footer_keeps_digests_and_devices_of_rows_that_did_not_run() -> None:
    stored = {DEVICE_KIND: "cpu", COPIED_ROWS: "1", COPIED_FROM: "[]", "ARROW:schema": "x"}
    stored |= digests_metadata(FIRST + FIRST)
    merged = merged_footer(stored, {DEVICE_KIND: "H100"}, NONE + SECOND)
    assert merged == {
        DEVICE_KIND: "H100, cpu",
        COPIED_ROWS: "1",
        COPIED_FROM: "[]",
        **digests_metadata(FIRST + SECOND),
    }
    assert merged_footer({}, {}, FIRST) == {}


def test_footer_of_copied_rows_names_their_runs_without_credentials() -> None:
    older = OlderRows(
        pa.table({"text": ["a"]}),
        np.array([1, 1]),
        ({DEVICE_KIND: "cpu"}, {DEVICE_KIND: "cpu"}),
        ("s3://key:secret@bucket/run",),
    )
    footer = with_copied_rows({}, older)
    assert footer[DEVICE_KIND] == "cpu"
    assert copied_row_count(footer) == 2
    assert "secret" not in json.loads(footer[COPIED_FROM])[0]
