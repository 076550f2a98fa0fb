"""Columns of a sample on its way through the selection, and what a stage says of a table of samples. It knows no rules.

id | columns of the seeds that are kept | sample_index template prompt completion finish_reason prompt_tokens completion_tokens
mean_logprob seed | status error_code error_message, which end with the stage `generation` | fields, once they are parsed
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.synthesis.selection.rejections import Rejection

# a last-digit difference between two computations of the same sample must not show, let alone
# decide
LOGPROB_PLACES = 2
# how many samples a row stands for: more than one where none of them could be drawn
SAMPLES = "samples"
ERROR_COLUMNS = ("_status", "_error_code", "_error_message")
COMPLETED = (
    ("sample_index", pa.int32()), ("template", pa.string()), ("prompt", pa.string()), ("completion", pa.string()),
    ("finish_reason", pa.string()), ("prompt_tokens", pa.int32()), ("completion_tokens", pa.int32()),
    ("mean_logprob", pa.float64()), ("seed", pa.int64()),
)  # fmt: skip
Verdicts = Sequence[Rejection | None]


@dataclass(frozen=True, slots=True)
class Judged:
    """Samples after a stage, perhaps with further columns, and its verdict on each.

    None: it passes.
    """

    table: pa.Table
    verdicts: Verdicts

    @property
    def passed(self) -> npt.NDArray[np.bool_]:
        """Which samples pass."""
        return np.fromiter(
            (verdict is None for verdict in self.verdicts), np.bool_, len(self.verdicts)
        )


StageFunction = Callable[[pa.Table], Judged]


def numbers(table: pa.Table, name: str, missing: float) -> "np.ndarray[tuple[int], np.dtype[Any]]":
    """Returns a column of numbers, with `missing` for nulls."""
    column: Any = table[name]
    return cast("np.ndarray[tuple[int], np.dtype[Any]]", column.fill_null(missing).to_numpy())


def row_groups(table: pa.Table) -> list[tuple[int, int]]:
    """Returns (first, end) of the samples of each row.

    Samples of a row follow each other, and rows have different ids.
    """
    ids = table["id"].to_pylist()
    starts = [place for place in range(len(ids)) if place == 0 or ids[place] != ids[place - 1]]
    return list(pairwise([*starts, len(ids)]))
