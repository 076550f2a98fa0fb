"""The GPU's projections, run in the interpreter, against NumPy and plain XLA."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kernels.gpu import projections as gpu_projections
from actors.kernels.gpu.experts import Tile
from actors.kernels.gpu.projections import MAX_PARTS, PROGRAMS, product_tile, split_product
from actors.kernels.interface import Placement
from actors.kernels.quantized import QuantizedWeight
from actors.kernels.xla import projections as xla_projections
from tests.actors.kernels.oracle import dequantized, new_tokens, quantized_matrix, rotated

project = jax.jit(partial(gpu_projections.project, interpret=True))
attention_inputs = jax.jit(partial(gpu_projections.attention_inputs, interpret=True))
HEADS, KV_HEADS, WIDTH, HEAD = 3, 2, 512, 16
PLACEMENT = new_tokens([0, 5, 9], [3, 0, 2], new=3, page_size=4, table=4)
TOKENS = PLACEMENT.positions_BT.shape
PAGES = (12, 4, KV_HEADS, HEAD)


@pytest.mark.parametrize(
    ("tokens", "rows", "columns", "groups"),
    [(1, 64, 64, 1), (5, 96, 40, 3), (70, 128, 130, 8)],
)
def test_project_matches_float64(tokens: int, rows: int, columns: int, groups: int) -> None:
    x_1NK = np.random.default_rng(1).standard_normal((1, tokens, rows)).astype(np.float32)
    weight = quantized_matrix(rows, columns, groups)
    expected = x_1NK.astype(np.float64) @ dequantized(weight)
    np.testing.assert_allclose(project(x_1NK, weight), expected, rtol=0, atol=2e-5)


def test_project_of_dense_weights_is_that_of_plain_xla() -> None:
    x_BTK = jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, 16)), jnp.float32)
    weight = jnp.asarray(dequantized(quantized_matrix(16, 8)), jnp.float32)
    expected = xla_projections.project(x_BTK, weight)
    np.testing.assert_array_equal(gpu_projections.project(x_BTK, weight), expected)


def inputs(groups: int, dtype: str) -> tuple[Any, ...]:
    """Returns activations, weights, pages of random numbers, and the placement."""
    rng = np.random.default_rng(2)
    widths = (HEADS * HEAD, KV_HEADS * HEAD, KV_HEADS * HEAD)
    weights = tuple(
        quantized_matrix(WIDTH, columns, groups, seed) for seed, columns in enumerate(widths)
    )
    x, keys, values = (
        jnp.asarray(rng.standard_normal(shape), dtype) for shape in ((*TOKENS, WIDTH), PAGES, PAGES)
    )
    return x, weights, keys, values, PLACEMENT


def exact_inputs(
    x_BTD: Any, weights: Any, keys: Any, values: Any, placement: Placement
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns queries and pages in float64."""
    x = np.asarray(x_BTD, np.float64)
    q, k, v = ((x @ dequantized(weight)).reshape(*TOKENS, -1, HEAD) for weight in weights)
    queries = np.zeros(q.shape)
    new_keys = np.asarray(keys, np.float64)
    new_values = np.asarray(values, np.float64)
    for row, token in np.ndindex(TOKENS):
        position = int(placement.positions_BT[row, token])
        for head in range(HEADS):
            queries[row, token, head] = rotated(q[row, token, head], position)
        page = int(placement.page_BT[row, token])
        if page == PAGES[0]:
            continue
        offset = int(placement.offset_BT[row, token])
        for head in range(KV_HEADS):
            new_keys[page, offset, head] = rotated(k[row, token, head], position)
            new_values[page, offset, head] = v[row, token, head]
    return queries, new_keys, new_values


@pytest.mark.parametrize("groups", [1, 4])
def test_attention_inputs_match_float64(groups: int) -> None:
    """Products of several parts; padding is not written, other rows of pages keep every bit."""
    arguments = inputs(groups, "float32")
    x_BTD, weights, keys, values, placement = arguments
    tile = product_tile(x_BTD.shape[0] * x_BTD.shape[1], jnp.float32)
    assert split_product(9, weights, tile, MAX_PARTS).parts > groups

    queries, new_keys, new_values = map(np.asarray, attention_inputs(*arguments))

    expected_queries, expected_keys, expected_values = exact_inputs(*arguments)
    np.testing.assert_allclose(queries, expected_queries, rtol=0, atol=2e-5)
    np.testing.assert_allclose(new_keys, expected_keys, rtol=0, atol=2e-5)
    np.testing.assert_allclose(new_values, expected_values, rtol=0, atol=2e-5)
    is_written = np.zeros(PAGES[:2], bool)
    is_real_BT = np.asarray(placement.page_BT) < PAGES[0]
    places = (placement.page_BT, placement.offset_BT)
    is_written[tuple(np.asarray(place)[is_real_BT] for place in places)] = True
    assert is_written.sum() == 5
    np.testing.assert_array_equal(new_keys[~is_written], np.asarray(keys)[~is_written])
    np.testing.assert_array_equal(new_values[~is_written], np.asarray(values)[~is_written])


def test_attention_inputs_round_as_plain_xla_does_in_bfloat16() -> None:
    arguments = inputs(1, "bfloat16")
    on_gpu = attention_inputs(*arguments)
    on_xla = jax.jit(xla_projections.attention_inputs)(*arguments)
    for gpu, xla in zip(on_gpu, on_xla, strict=True):
        assert gpu.dtype == xla.dtype == jnp.bfloat16
        difference = np.abs(np.asarray(gpu, np.float32) - np.asarray(xla, np.float32))
        # products round to bfloat16 before the rotation: seldom to the neighbour
        assert difference.max() <= 2**-6
        assert (difference > 0).mean() < 0.02


@given(
    tokens=st.integers(1, 9000),
    rows=st.sampled_from([64, 96, 512, 768, 6144]),
    groups=st.sampled_from([1, 2, 3, 8]),
    dtype=st.sampled_from(["bfloat16", "float32"]),
)
def test_split_has_parts_of_complete_groups(
    tokens: int, rows: int, groups: int, dtype: str
) -> None:
    if rows % groups:
        return
    weight = QuantizedWeight(
        jax.ShapeDtypeStruct((rows, 768), "int8"), jax.ShapeDtypeStruct((groups, 768), "bfloat16")
    )
    tile = product_tile(tokens, dtype)
    split = split_product(tokens, [weight], tile, MAX_PARTS)
    assert split.parts <= MAX_PARTS
    assert rows % max(split.parts, groups) == 0
    assert split.parts % groups == 0 or groups % split.parts == 0
    # more parts than needed would cost writes, and a part of one step would cost more than it saves
    assert split.parts == 1 or split.row_tiles * split.column_tiles * split.parts < 2 * PROGRAMS
    assert split.parts == 1 or rows >= 2 * split.parts * tile.depth
    assert split_product(tokens, [weight], tile, 1).parts == 1


def test_tile_has_rows_for_tensor_cores_of_hopper() -> None:
    """Products of 64 rows and more take their second operand from shared memory."""
    for tokens in (1, 64, 512, 8192):
        tile = product_tile(tokens, jnp.bfloat16)
        assert isinstance(tile, Tile)
        assert tile.rows >= 64
