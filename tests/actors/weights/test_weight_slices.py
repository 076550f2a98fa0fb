"""Tensors on the host: slices along the axis that meshes split, and checks of their numbers."""

import numpy as np
import pytest

from actors.model.config import GROK_1, TensorSpec, parameter_shapes
from actors.model.sharding import RULES
from actors.protocol.errors import ModelError
from actors.weights.pickle_reader import BFLOAT16, Int8Tensor
from actors.weights.weight_slices import (
    SPLIT_AXES,
    HostSlices,
    check,
    check_finite,
    cut,
    split_axis,
)
from tests.actors.model.models import config_of

QUERY = TensorSpec("layer/query", "w", (4, 8), ("embed", "heads"), 1)
OUTPUT = TensorSpec("layer/linear", "w", (8, 4), ("heads", "embed"), 2)
NORM = TensorSpec("layer/rms_norm", "scale", (4,), ("embed",))
TABLE = TensorSpec("model/embed", "embeddings", (6, 4), ("vocab", "embed"))


def quantized(tensor: TensorSpec) -> Int8Tensor:
    values = np.arange(np.prod(tensor.shape), dtype=np.int8).reshape(tensor.shape)
    return Int8Tensor(values, np.ones(tensor.scales_shape or (), BFLOAT16))


@pytest.mark.parametrize(("tensor", "axis"), [(QUERY, 1), (OUTPUT, 0), (TABLE, 0), (NORM, None)])
def test_split_axis_is_the_dimension_of_the_mesh(tensor: TensorSpec, axis: int | None) -> None:
    assert split_axis(tensor) == axis


@pytest.mark.parametrize("tensor", [QUERY, OUTPUT])
def test_cut_slices_are_contiguous_and_join_to_the_tensor(tensor: TensorSpec) -> None:
    value = quantized(tensor)
    slices = cut(tensor, value, 2)
    axis = split_axis(tensor)
    for slice_, expected in zip(slices.values, np.split(value.weight, 2, axis), strict=True):
        assert slice_.flags.c_contiguous
        np.testing.assert_array_equal(slice_, expected)
    assert slices.scales is not None
    assert not np.shares_memory(slices.scales, value.scales)
    joined = slices.joined(tensor)
    assert isinstance(joined, Int8Tensor)
    np.testing.assert_array_equal(joined.weight, value.weight)


def test_cut_of_a_tensor_that_no_mesh_splits_is_one_slice() -> None:
    assert len(cut(NORM, np.ones(4, np.float32), 8).values) == 1


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_check_finite_of_scales_and_norms(number: float) -> None:
    value = quantized(OUTPUT)
    value.scales[1, 3] = number
    with pytest.raises(ModelError, match="file: layer/linear/w holds NaN or infinity"):
        check(OUTPUT, value, "file")
    norm = np.ones(4, np.float32)
    norm[2] = number
    with pytest.raises(ModelError, match="layer/rms_norm/scale holds NaN or infinity"):
        check(NORM, norm, "file")


def test_check_finite_reads_the_embedding_only_when_deep() -> None:
    table = np.ones((6, 4), np.float32)
    table[5, 3] = np.nan
    slices = HostSlices((table,), None)
    check_finite(TABLE, slices, "file")
    with pytest.raises(ModelError, match="model/embed/embeddings holds NaN"):
        check_finite(TABLE, slices, "file", deep=True)


def test_split_axes_are_those_of_the_mesh_rules() -> None:
    assert set(SPLIT_AXES) == {axis for axis, mesh_axis in RULES.items() if mesh_axis == "model"}
    for tensor in parameter_shapes(GROK_1):
        split = [number for number, axis in enumerate(tensor.axes) if RULES[axis] == "model"]
        assert split == [axis for axis in [split_axis(tensor)] if axis is not None]


def test_cut_matches_the_slices_of_the_mesh() -> None:
    tensors = {tensor.path: tensor for tensor in parameter_shapes(config_of("gqa"))}
    tensor = tensors["transformer/decoder_layer_0/moe/linear/w"]
    assert tensor.scales_shape is not None
    value = Int8Tensor(np.zeros(tensor.shape, np.int8), np.ones(tensor.scales_shape, "bfloat16"))
    slices = cut(tensor, value, 8)
    assert [part.shape for part in slices.values] == [(*tensor.shape[:2], tensor.shape[2] // 8)] * 8
    assert all(part.flags.c_contiguous for part in slices.values)
