"""A tensor on the host, cut along the dimension that a mesh splits: the same for all layouts."""

from typing import NamedTuple

import numpy as np

from actors.model.config import TensorSpec
from actors.protocol.errors import ModelError
from actors.weights.pickle_reader import HostTensor, Int8Tensor, describe

# the dimensions that `sharding.RULES` lays over the model axis
SPLIT_AXES = ("vocab", "heads", "kv_heads", "ffn")


class HostSlices(NamedTuple):
    """Contiguous slices of a tensor along `split_axis`, in order.

    The scales of an int8 tensor stay whole, they are small.
    """

    values: tuple[np.ndarray, ...]
    scales: np.ndarray | None

    def joined(self, tensor: TensorSpec) -> HostTensor:
        """Returns the whole tensor."""
        values = self.values[0]
        if len(self.values) > 1:
            values = np.concatenate(self.values, split_axis(tensor) or 0)
        return values if self.scales is None else Int8Tensor(values, self.scales)


def split_axis(tensor: TensorSpec) -> int | None:
    """Returns which dimension of the tensor is split over devices; None: each device has all."""
    for number, name in enumerate(tensor.axes):
        if name in SPLIT_AXES:
            return number
    return None


def cut(tensor: TensorSpec, value: HostTensor, count: int) -> HostSlices:
    """Returns the tensor in `count` equal slices, copied only where a slice is not contiguous.

    Tensors without a split are one slice.
    """
    values: np.ndarray
    scales: np.ndarray | None = None
    if isinstance(value, Int8Tensor):
        values = value.weight
        # a copy: devices that are CPUs would keep the memory of the complete file for this view
        scales = np.array(value.scales)
    else:
        values = value

    axis = split_axis(tensor)
    slices = [values]
    if axis is not None:
        slices = np.split(values, count, axis)
    return HostSlices(tuple(map(np.ascontiguousarray, slices)), scales)


def expected(tensor: TensorSpec) -> str:
    """Returns type and shape that the tensor must have, as `describe` spells them."""
    if tensor.scales_shape is None:
        return f"float32 {list(tensor.shape)}"
    return f"int8 {list(tensor.shape)} with scales bfloat16 {list(tensor.scales_shape)}"


def check(tensor: TensorSpec, value: HostTensor, name: str) -> None:
    """Checks type and shape, and that norms, routers and scales are finite.

    Raises:
        ModelError: one of them is not as it must be.
    """
    if describe(value) != expected(tensor):
        raise ModelError(
            f"{name}: expected {tensor.path} as {expected(tensor)}, got {describe(value)}; "
            f"the file belongs to another tensor or another model, fetch it again or correct "
            f"--model"
        )
    check_finite(tensor, cut(tensor, value, 1), name)


def check_finite(tensor: TensorSpec, slices: HostSlices, name: str, *, deep: bool = False) -> None:
    """Checks that norms, routers and scales hold neither NaN nor infinity.

    `deep`: nor the embedding, which takes a second.

    Raises:
        ModelError: one of them does.
    """
    if slices.scales is None and tensor.name == "embeddings" and not deep:
        return
    arrays = slices.values
    if slices.scales is not None:
        arrays = (slices.scales,)
    for array in arrays:
        if not _is_finite(array):
            raise ModelError(f"{name}: {tensor.path} holds NaN or infinity; fetch the file again")


def _is_finite(array: np.ndarray) -> bool:
    """Returns whether all numbers are finite; in blocks, so that a large table is not copied."""
    rows = array.reshape(-1, array.shape[-1])
    block = max(1, (1 << 20) // rows.shape[-1])
    for start in range(0, len(rows), block):
        numbers = rows[start : start + block].astype(np.float32)
        if not np.isfinite(numbers).all():
            return False
    return True
