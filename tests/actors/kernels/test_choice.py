"""The platform of a device, and how it prepares weights."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from actors.kernels.choice import platform_of, select_platform
from actors.kernels.cpu.code import instruction_sets
from actors.kernels.cpu.platform import CPU
from actors.kernels.gpu.layout import TransposedExperts
from actors.kernels.gpu.platform import GPU
from actors.kernels.interface import Platform
from actors.kernels.quantized import QuantizedWeight
from actors.kernels.xla.layout import DenseExperts
from actors.kernels.xla.platform import XLA, XLA_CPU
from actors.protocol.errors import ModelError


def test_select_platform_by_the_name_of_the_device() -> None:
    assert select_platform("cpu") is (CPU if instruction_sets() else XLA_CPU)
    assert select_platform("tpu") is XLA
    assert select_platform("gpu") is select_platform("cuda") is GPU


@pytest.mark.parametrize(
    ("name", "version"), [("gpu", "PJRT C API\nrocm 60300"), ("rocm", "rocm 60300")]
)
def test_amd_gpus_are_refused(name: str, version: str) -> None:
    client = SimpleNamespace(platform_version=version)
    device = SimpleNamespace(platform=name, client=client, device_kind="AMD Instinct MI300X")
    with pytest.raises(ModelError, match=r"AMD Instinct MI300X: AMD GPUs \(ROCm\)"):
        platform_of(device)


def test_platform_of_devices_of_this_and_other_makers() -> None:
    cuda = SimpleNamespace(platform_version="PJRT C API\ncuda 12090")
    assert platform_of(SimpleNamespace(platform="gpu", client=cuda)) is GPU
    assert platform_of(SimpleNamespace(platform="cuda")) is GPU, "a device that only compiles"
    assert platform_of(jax.devices()[0]) is select_platform("cpu")


@pytest.mark.parametrize(
    ("platform", "auto_is_dense"), [(XLA, False), (XLA_CPU, True), (CPU, False), (GPU, False)]
)
def test_platform_is_dense(platform: Platform, auto_is_dense: bool) -> None:
    assert platform.is_dense("dense")
    assert not platform.is_dense("int8")
    assert platform.is_dense("auto") == auto_is_dense


def loaded_params() -> dict[str, dict[str, QuantizedWeight]]:
    experts = QuantizedWeight(jnp.ones((2, 4, 8), jnp.int8), jnp.full((2, 1, 8), 0.5, jnp.bfloat16))
    return {"moe": {"w": experts}}


def test_platform_prepares_weights_dense_or_packed() -> None:
    dense = GPU.prepare(loaded_params(), jnp.float32, dense=True)["moe"]["w"]
    assert isinstance(dense, DenseExperts)
    np.testing.assert_array_equal(dense.experts[1], np.full((8, 4), 0.5))
    packed = GPU.prepare(loaded_params(), jnp.float32, dense=False)["moe"]["w"]
    assert isinstance(packed, TransposedExperts)
    loaded = loaded_params()
    assert XLA.prepare(loaded, jnp.float32, dense=False) == loaded


def test_cache_holds_bfloat16_as_bits_on_xla_only() -> None:
    assert XLA.cache_dtype(jnp.bfloat16) is CPU.cache_dtype(jnp.bfloat16) is jnp.uint16
    assert GPU.cache_dtype(jnp.bfloat16) is jnp.bfloat16
    assert XLA.cache_dtype(jnp.float32) is GPU.cache_dtype(jnp.float32) is jnp.float32


def test_only_the_gpu_reads_pages_to_the_end_of_a_sequence() -> None:
    assert [p.reads_whole_table for p in (XLA, XLA_CPU, CPU, GPU)] == [True, True, True, False]
