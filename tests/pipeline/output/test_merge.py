"""Rows that ran again in place of the old ones."""

import numpy as np
import pyarrow as pa

from pipeline.output.merge import merge_rows


def test_merge_replaces_all_samples_of_a_row_in_order() -> None:
    committed = pa.table({"sample_index": [0, 0, 0, 1], "text": ["a", "failed", "c0", "c1"]})
    rerun = pa.table({"sample_index": [1, 0], "text": ["b1", "b0"]})
    merged = merge_rows(committed, rerun, np.array([0, 1, 2, 2]), [1, 1])
    assert merged["text"].to_pylist() == ["a", "b0", "b1", "c0", "c1"]
