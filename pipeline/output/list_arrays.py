"""Values of many samples, one `array.array` per sample → Arrow list arrays.

The bytes of all samples are joined once per column, so that no value becomes a Python object.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import CommitError

Lengths = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class JoinedValues:
    """The values of all samples, one after the other."""

    values: npt.NDArray[Any]
    lengths: Lengths  # values of each sample; 0 where it is null
    null: Mask  # samples without values


def join_values(samples: "Sequence[array[Any] | None]", value_type: pa.DataType) -> JoinedValues:
    """Joins the values of all samples. None is a null sample."""
    dtype = cast(Any, value_type).to_pandas_dtype()
    values = np.frombuffer(b"".join(filter(None, samples)), dtype)
    null = np.array([sample is None for sample in samples], np.bool_)
    return JoinedValues(values, value_counts(samples), null)


def value_counts(samples: "Sequence[array[Any] | None]") -> Lengths:
    """Returns the number of values of each sample; 0 where it is null."""
    return np.array([len(sample or ()) for sample in samples], np.int32)


def list_array(lengths: Lengths, values: "pa.Array[Any]", null: Mask) -> "pa.Array[Any]":
    """Returns the array of lists of these lengths over `values`.

    Raises:
        CommitError: it has more values than the offsets of a list array can address.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise CommitError(
            f"a shard has {offsets[-1]} values in one column, more than a list column holds; use a "
            "smaller --shard-rows"
        )
    from_arrays: Any = pa.ListArray.from_arrays  # its stubs do not allow a mask
    lists = from_arrays(pa.array(offsets.astype(np.int32)), values, mask=pa.array(null))
    return cast("pa.Array[Any]", lists)


def with_leading_null(lengths: Lengths, null: Mask) -> tuple[Lengths, Mask]:
    """Makes room for one more value at the beginning of every list that is not null.

    Returns:
        The new lengths, and for each position of all lists whether it holds one of the old values.
    """
    longer = (lengths + ~null).astype(np.int32)
    ends = np.cumsum(longer, dtype=np.int64)
    starts = ends - longer
    filled = np.ones(int(longer.sum(dtype=np.int64)), np.bool_)
    filled[starts[~null]] = False
    return longer, filled


def spread(values: npt.NDArray[Any], filled: Mask) -> npt.NDArray[Any]:
    """Returns `values` at the positions that are filled, and zeros elsewhere."""
    spaced = np.zeros(filled.size, values.dtype)
    spaced[filled] = values
    return spaced


def sums_per_sample(joined: JoinedValues) -> npt.NDArray[np.float64]:
    """Returns the sum of each sample's values in float64; 0 where it has none.

    Each sample is summed separately: its sum does not depend on other samples.
    """
    sums = np.zeros(len(joined.lengths))
    has_values = joined.lengths > 0
    if has_values.any():
        ends = np.cumsum(joined.lengths, dtype=np.int64)
        starts = (ends - joined.lengths)[has_values]
        sums[has_values] = np.add.reduceat(joined.values, starts, dtype=np.float64)
    return sums


def vector_array(
    values: npt.NDArray[Any], null: Mask, size: int, value_type: pa.DataType
) -> "pa.Array[Any]":
    """Returns the array of vectors of `size` numbers.

    Args:
        values: of all vectors that are not null, one after the other.
        null: which vectors are.
        size: numbers of a vector.
        value_type: int32, float32 or float16.

    Raises:
        CommitError: a number is beyond float16.
    """
    dtype = cast(Any, value_type).to_pandas_dtype()
    if value_type == pa.float16():
        _check_half(values)
    filled = np.zeros((len(null), size), dtype)
    filled[~null] = values.reshape(-1, size)
    from_arrays: Any = pa.FixedSizeListArray.from_arrays  # its stubs do not allow a mask
    vectors = from_arrays(pa.array(filled.ravel(), value_type), size, mask=pa.array(null))
    return cast("pa.Array[Any]", vectors)


def _check_half(values: npt.NDArray[Any]) -> None:
    finite = values[np.isfinite(values)]
    if finite.size and np.abs(finite).max() > np.finfo(np.float16).max:
        raise CommitError(
            f"a vector has the number {np.abs(finite).max():g}, more than float16 holds; use "
            "--embedding-dtype float32"
        )
