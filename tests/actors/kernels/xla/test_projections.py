"""Products, rotations and writes of pages in plain XLA, against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from actors.kernels.quantized import QuantizedWeight
from actors.kernels.xla.attention import bits
from actors.kernels.xla.projections import project, rotate, write_rows
from tests.actors.kernels.oracle import new_tokens
from tests.actors.kernels.oracle import rotated as exact_rotation

RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (3, 16)).astype(np.float32)


def test_project_multiplies_with_int8_and_its_scales() -> None:
    weight = RNG.integers(-127, 128, (16, 5)).astype(np.int8)
    scales = RNG.uniform(0.5, 2, (4, 5)).astype(jnp.bfloat16)
    result = project(jnp.asarray(X), QuantizedWeight(jnp.asarray(weight), jnp.asarray(scales)))
    exact_weight = weight * np.repeat(scales.astype(np.float64), 4, axis=0)
    np.testing.assert_allclose(result, X.astype(np.float64) @ exact_weight, rtol=1e-5, atol=1e-3)


def test_project_keeps_the_type_of_its_input() -> None:
    weight = jnp.ones((16, 5), jnp.bfloat16)
    assert project(jnp.asarray(X, jnp.bfloat16), weight).dtype == jnp.bfloat16


@pytest.mark.parametrize("stored_type", ["float32", "bfloat16", "uint16"])
def test_write_rows_stores_real_tokens_in_the_type_of_pages(stored_type: str) -> None:
    placement = new_tokens([0, 2], [4, 3], new=4, page_size=2, table=3)
    pages = jnp.full((6, 2, 2, 4), 7, stored_type)
    rows = jnp.asarray(RNG.normal(0, 1, (2, 4, 2, 4)), jnp.bfloat16)
    stored = np.asarray(rows)
    if stored_type == "uint16":
        stored = np.asarray(bits(rows))

    written = np.asarray(write_rows(pages, rows, placement))

    expected = np.array(pages)
    for row, count in enumerate([4, 3]):
        for number in range(count):
            place = (placement.page_BT[row, number], placement.offset_BT[row, number])
            expected[place] = stored[row, number].astype(stored_type)
    assert written.dtype == pages.dtype
    np.testing.assert_array_equal(written, expected)


def rotated(x_C: np.ndarray, position: int) -> np.ndarray:
    x_BTKC = jnp.asarray(x_C, jnp.float32)[None, None, None, :]
    positions_BT = jnp.asarray([[position]], jnp.int32)
    return np.asarray(rotate(x_BTKC, positions_BT))[0, 0, 0]


@pytest.mark.parametrize("position", [0, 1, 7, 1000])
def test_rotation_multiplies_complex_numbers_of_both_halves(position: int) -> None:
    x = X[0]
    expected = exact_rotation(x, position)
    np.testing.assert_allclose(rotated(x, position), expected, atol=1e-3 if position > 7 else 1e-5)


@pytest.mark.parametrize("position", [1, 63, 4095])
def test_rotation_preserves_norms(position: int) -> None:
    for x in X:
        np.testing.assert_allclose(
            np.linalg.norm(rotated(x, position)), np.linalg.norm(x), rtol=1e-5
        )


def test_rotation_at_position_0_changes_nothing() -> None:
    np.testing.assert_array_equal(rotated(X[0], 0), X[0])


@pytest.mark.parametrize("shift", [1, 5, 40])
def test_products_of_rotations_depend_on_the_distance_only(shift: int) -> None:
    query, key = X[:2]
    product = rotated(query, 9) @ rotated(key, 4)
    shifted = rotated(query, 9 + shift) @ rotated(key, 4 + shift)
    np.testing.assert_allclose(shifted, product, rtol=1e-4, atol=1e-4)
    assert abs(rotated(query, 10) @ rotated(key, 4) - product) > 1e-2


def test_rotation_keeps_bfloat16_and_rotates_in_float32() -> None:
    """In bfloat16 itself, position 1001 would be 1000."""
    x_BTKC = jnp.asarray(X[None, :1, None, :], jnp.bfloat16)
    positions_BT = jnp.asarray([[1001]], jnp.int32)
    result = rotate(x_BTKC, positions_BT)
    assert result.dtype == jnp.bfloat16
    exact = rotated(np.asarray(x_BTKC, np.float32)[0, 0, 0], 1001)
    np.testing.assert_allclose(
        np.asarray(result, np.float32)[0, 0, 0], exact, rtol=2**-7, atol=1e-3
    )
