"""The machine's own rates with JAX: matrix products, reads and copies of memory."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jobs.checks.device_time import queued_time


@dataclass(frozen=True)
class CeilingSizes:
    """Sizes of the measurements: a square product, and the bytes that one read or copy moves."""

    product_width: int
    moved_bytes: int


# Far more than any cache holds. On GPUs large enough that the start of a kernel does not count.
GPU_SIZES = CeilingSizes(product_width=8192, moved_bytes=8 << 30)
CPU_SIZES = CeilingSizes(product_width=2048, moved_bytes=1 << 28)
TINY_SIZES = CeilingSizes(product_width=64, moved_bytes=1 << 16)

ROW_NUMBERS = 1 << 12  # of the arrays that are read and copied


@dataclass(frozen=True)
class Ceilings:
    """Rates of one device; bytes of a copy count twice, read and written."""

    product_flops_per_s: float
    read_bytes_per_s: float
    copy_bytes_per_s: float


def measure_ceilings(dtype: str, sizes: CeilingSizes) -> Ceilings:
    """Measures the rates of the first device.

    The product is also measured in float32: a CPU without bfloat16 instructions is faster in it.

    Args:
        dtype: of the product.
        sizes: of the measurements.
    """
    product_s = min(_product_s(sizes.product_width, name) for name in {dtype, "float32"})
    return Ceilings(
        product_flops_per_s=2 * sizes.product_width**3 / product_s,
        read_bytes_per_s=sizes.moved_bytes / _read_s(sizes.moved_bytes),
        copy_bytes_per_s=sizes.moved_bytes / _copy_s(sizes.moved_bytes // 2),
    )


def _product_s(width: int, dtype: str) -> float:
    x = jax.random.normal(jax.random.key(0), (width, width), dtype)
    product = jax.jit(lambda a, b: jnp.dot(a, b, preferred_element_type=jnp.float32))
    return queued_time(lambda: product(x, x)).shortest_s


def _read_s(size_bytes: int) -> float:
    data = _numbers(size_bytes)
    read = jax.jit(jnp.sum)
    return queued_time(lambda: read(data)).shortest_s


def _copy_s(size_bytes: int) -> float:
    data = _numbers(size_bytes)
    copy = jax.jit(lambda numbers: numbers + 1)
    return queued_time(lambda: copy(data)).shortest_s


def _numbers(size_bytes: int) -> jax.Array:
    """Returns float32 numbers of this size; rows, as some kernels count numbers in 32 bits."""
    return jnp.ones((size_bytes // (4 * ROW_NUMBERS), ROW_NUMBERS), jnp.float32)
