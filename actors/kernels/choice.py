"""Selects the platform of a device. The mesh's devices decide, also those that only compile."""

from actors.kernels.cpu.code import instruction_sets
from actors.kernels.cpu.platform import CPU
from actors.kernels.gpu.platform import GPU
from actors.kernels.interface import Platform
from actors.kernels.xla.platform import XLA, XLA_CPU

_BY_NAME = {
    "gpu": GPU,
    "cuda": GPU,
    "cpu": CPU if instruction_sets() else XLA_CPU,
}


def select_platform(name: str) -> Platform:
    """Returns the platform of a device by the name that JAX gives it: "cpu", "gpu" or "cuda"."""
    return _BY_NAME.get(name, XLA)
