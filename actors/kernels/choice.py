"""Selects the platform of a device. The mesh's devices decide, also those that only compile."""

from typing import Any

from actors.kernels.cpu.code import instruction_sets
from actors.kernels.cpu.platform import CPU
from actors.kernels.gpu.platform import GPU
from actors.kernels.interface import Platform
from actors.kernels.xla.platform import XLA, XLA_CPU
from actors.protocol.errors import ModelError

_BY_NAME = {
    "gpu": GPU,
    "cuda": GPU,
    "cpu": CPU if instruction_sets() else XLA_CPU,
}


def select_platform(name: str) -> Platform:
    """Returns the platform of a device by the name that JAX gives it: "cpu", "gpu" or "cuda"."""
    return _BY_NAME.get(name, XLA)


def platform_of(device: Any) -> Platform:
    """Returns the platform of one of JAX's devices.

    Raises:
        ModelError: the device is an AMD GPU.
    """
    if _is_rocm(device):
        raise ModelError(
            f"{device.device_kind}: AMD GPUs (ROCm) are not supported, because the kernels of "
            "GPUs are written for CUDA and need 96 KiB of shared memory, an AMD GPU has 64; use "
            "machines with NVIDIA GPUs, or give --device cpu"
        )
    return select_platform(device.platform)


def _is_rocm(device: Any) -> bool:
    """Returns whether a device is an AMD GPU; JAX calls these "gpu", too."""
    if device.platform == "gpu":
        return "rocm" in device.client.platform_version.lower()
    return bool(device.platform == "rocm")
