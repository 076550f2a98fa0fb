"""Tables of samples in the selection, and the result of a stage for such a table.

Columns of the table: id, kept columns of the seeds, those of `columns.COMPLETED`, the status and
error of the row up to the stage `generation`, and the parsed fields from the stage `parse` on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.synthesis.rejections import Rejection

# mean log-probs are rounded: a last-digit difference between two computations decides nothing
LOGPROB_PLACES = 2
Verdicts = Sequence[Rejection | None]


@dataclass(frozen=True, slots=True)
class StageResult:
    """Samples after a stage, perhaps with further columns, and a verdict for each.

    A sample passes with the verdict None.
    """

    table: pa.Table
    verdicts: Verdicts

    @property
    def passed(self) -> npt.NDArray[np.bool_]:
        """Mask of the samples that pass."""
        return np.array([verdict is None for verdict in self.verdicts], np.bool_)


StageFunction = Callable[[pa.Table], StageResult]


def numbers(table: pa.Table, name: str, missing: float) -> "np.ndarray[tuple[int], np.dtype[Any]]":
    """Returns a column of numbers, with `missing` for nulls."""
    column: Any = table[name]
    return cast("np.ndarray[tuple[int], np.dtype[Any]]", column.fill_null(missing).to_numpy())


def row_groups(table: pa.Table) -> list[tuple[int, int]]:
    """Returns (first, end) of the samples of each row.

    Samples of a row are adjacent, and rows have different ids.
    """
    ids = table["id"].to_pylist()
    bounds = []
    for position, row_id in enumerate(ids):
        if position == 0 or row_id != ids[position - 1]:
            bounds.append(position)
    return list(pairwise([*bounds, len(ids)]))
