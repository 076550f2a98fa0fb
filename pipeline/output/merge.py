"""Rows of a part that ran again → the part with these rows in place of the old ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Positions = npt.NDArray[np.int64]


def merge_rows(
    committed: pa.Table,
    rerun: pa.Table,
    committed_rows: Positions,
    rerun_rows: Sequence[int] | Positions,
) -> pa.Table:
    """Returns `committed` with the output rows of some input rows replaced by `rerun`.

    Args:
        committed: the part, with a column `sample_index`.
        rerun: output rows of the input rows that ran again, of the same schema.
        committed_rows: the input row of each row of `committed`.
        rerun_rows: the input row of each row of `rerun`.
    """
    is_kept = ~np.isin(committed_rows, rerun_rows)
    kept = committed.filter(pa.array(is_kept))

    unordered = pa.concat_tables([kept, rerun])
    row_numbers = np.concatenate([committed_rows[is_kept], rerun_rows])
    sample_index: Any = unordered["sample_index"]
    order = np.lexsort((sample_index.to_numpy(), row_numbers))
    return unordered.unify_dictionaries().take(order)
