"""Random weights, and the int8 weights that floats are quantized to."""

import numpy as np
import pytest

from actors.model.config import parameter_shapes
from actors.weights.pickle_reader import BFLOAT16, Int8Tensor
from actors.weights.random_weights import quantize, random_parameters
from tests import reference
from tests.actors.model.models import config_of


def test_quantize_rounds_to_the_nearest_step() -> None:
    values = np.random.default_rng(2).standard_normal((4, 32, 6)).astype(np.float32)
    host = quantize(values, 4)
    step = np.repeat(host.scales.astype(np.float32), 8, axis=-2)
    # the scale is rounded to bfloat16, so the largest value of a group may be cut by half a percent
    assert (
        np.abs(reference.dequantised(host) - values) <= step * 0.5 + np.abs(values) * 2**-8
    ).all()
    assert np.abs(host.weight).max() <= 127
    np.testing.assert_array_equal(quantize(np.zeros((8, 2), np.float32), 8).weight, 0)
    with pytest.raises(ValueError, match="30 rows cannot be cut into 8 equal groups"):
        quantize(values[:, :30], 8)


def test_random_parameters_have_the_shapes_of_the_model_and_repeat() -> None:
    config = config_of("mha")
    tensors = list(random_parameters(config, seed=3))
    assert [path for path, _ in tensors] == [tensor.path for tensor in parameter_shapes(config)]
    for (_, tensor), (_, repeated), (_, other_seed), spec in zip(
        tensors,
        random_parameters(config, seed=3),
        random_parameters(config, seed=4),
        parameter_shapes(config),
        strict=True,
    ):
        if isinstance(tensor, Int8Tensor):
            assert tensor.weight.shape == spec.shape
            assert tensor.scales.shape == spec.scales_shape
            assert tensor.scales.dtype == BFLOAT16
        else:
            assert tensor.shape == spec.shape
            assert spec.scales_shape is None
        numbers = reference.dequantised(tensor)
        np.testing.assert_array_equal(reference.dequantised(repeated), numbers)
        assert not np.array_equal(reference.dequantised(other_seed), numbers)
