"""Tables of samples with the columns of completions.py, for the tests of the selection."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.synthesis.columns import COMPLETED, ERROR_COLUMNS, SAMPLES

_KEPT: list[tuple[str, pa.DataType]] = [
    ("id", pa.string()),
    ("a", pa.int64()),
    ("topic", pa.string()),
]
KEPT = pa.schema(_KEPT)
SCHEMA = pa.schema(
    [
        *KEPT,
        *COMPLETED,
        *(pa.field(name, pa.string()) for name in ERROR_COLUMNS),
        pa.field(SAMPLES, pa.int32()),
    ]
)
PLAIN: dict[str, Any] = {
    "a": 1,
    "topic": "t",
    "sample_index": 0,
    "template": "x",
    "prompt": "p",
    "completion": " c",
    "finish_reason": "stop",
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "mean_logprob": -0.5,
    "seed": 7,
    "_status": "ok",
    SAMPLES: 1,
}


def samples(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Returns a table of samples.

    What a row does not say is as in `PLAIN`, and its id is its position.
    """
    full = [{"id": f"r{place}", **PLAIN, **row} for place, row in enumerate(rows)]
    return pa.Table.from_pylist(full, schema=SCHEMA)


def texts(*completions: str) -> pa.Table:
    """Returns one sample of a row each, with these completions."""
    return samples([{"completion": text} for text in completions])
