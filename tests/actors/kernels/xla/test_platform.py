"""The platform of plain XLA: types of pages, and weights as it computes with them."""

import jax.numpy as jnp
import numpy as np
import pytest

from actors.kernels.cpu.platform import CPU
from actors.kernels.interface import Platform
from actors.kernels.quantized import QuantizedWeight
from actors.kernels.xla.layout import DenseExperts
from actors.kernels.xla.platform import XLA, XLA_CPU

WEIGHTS = np.arange(-12, 12, dtype=np.int8).reshape(2, 3, 4)


def loaded_params() -> dict[str, dict[str, QuantizedWeight]]:
    scales = jnp.full((2, 1, 4), 0.5, jnp.bfloat16)
    return {"moe": {"w": QuantizedWeight(jnp.asarray(WEIGHTS), scales)}}


@pytest.mark.parametrize("platform", [XLA, XLA_CPU])
def test_pages_of_bfloat16_hold_bits(platform: Platform) -> None:
    assert platform.cache_dtype(jnp.bfloat16) == jnp.uint16
    assert platform.cache_dtype(jnp.dtype("bfloat16")) == jnp.uint16
    assert platform.cache_dtype(jnp.float32) == jnp.float32


def test_packed_weights_are_those_that_were_loaded() -> None:
    params = loaded_params()
    packed = XLA.prepare(params, jnp.float32, dense=False)
    assert packed["moe"]["w"] is params["moe"]["w"]


@pytest.mark.parametrize("platform", [XLA, XLA_CPU])
def test_dense_weights_are_transposed_experts(platform: Platform) -> None:
    dense = platform.prepare(loaded_params(), jnp.float32, dense=True)["moe"]["w"]
    assert isinstance(dense, DenseExperts)
    for expert, weight in zip(dense.experts, WEIGHTS, strict=True):
        np.testing.assert_array_equal(expert, 0.5 * weight.T)


def test_cpus_without_kernels_compute_dense_by_default() -> None:
    assert XLA_CPU.is_dense("auto")
    assert not XLA.is_dense("auto")
    assert not XLA_CPU.is_dense("int8")


@pytest.mark.parametrize("platform", [XLA_CPU, CPU])
def test_cpus_round_rows_alike_by_compiler_options(platform: Platform) -> None:
    """What the options do to the bits of a row is tested with an engine."""
    option = "xla_cpu_experimental_ynn_fusion_type"
    bfloat16_only = {option: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
    assert platform.compiler_options(jnp.bfloat16) == bfloat16_only
    assert platform.compiler_options(jnp.dtype("float32")) == {option: ""}
    assert XLA.compiler_options(jnp.float32) == {}


def test_cpus_use_the_kernels_of_plain_xla() -> None:
    assert XLA_CPU.name != XLA.name
    assert XLA_CPU.kernels is XLA.kernels
    assert XLA_CPU.reads_whole_table == XLA.reads_whole_table
