"""Columns of a synthetic data set, of its rejected rows, and of samples in the selection.

id | kept columns of the seeds | COMPLETED with parsed fields after `completion` | votes, voters
rejected rows: the same | REJECTED
"""

import pyarrow as pa

# number of samples that a row stands for: more than one if none of them could be drawn
SAMPLES = "samples"
# status and error of a row in the run; dropped before rows are written
ERROR_COLUMNS = ("_status", "_error_code", "_error_message")
_COMPLETED: list[tuple[str, pa.DataType]] = [
    ("sample_index", pa.int32()),
    ("template", pa.string()),
    ("prompt", pa.string()),
    ("completion", pa.string()),
    ("finish_reason", pa.string()),
    ("prompt_tokens", pa.int32()),
    ("completion_tokens", pa.int32()),
    ("mean_logprob", pa.float64()),
    ("seed", pa.int64()),
]
COMPLETED = pa.schema(_COMPLETED)
VOTES = pa.schema([("votes", pa.int32()), ("voters", pa.int32())])
_REJECTED: list[tuple[str, pa.DataType]] = [
    ("stage", pa.string()),
    ("reason", pa.string()),
    ("detail", pa.string()),
    ("duplicate_of", pa.string()),
    (SAMPLES, pa.int32()),
]
REJECTED = pa.schema(_REJECTED)
# names that a column of the seeds cannot have if it passes through
RESERVED = frozenset(["id", *COMPLETED.names, *VOTES.names, *REJECTED.names, *ERROR_COLUMNS]) - {
    "seed"
}
