"""Experts: each token through its own, whatever the routing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kernels.quantized import QuantizedWeight, dequantize
from actors.kernels.xla.experts import (
    LONGEST_BLOCK,
    ROW_STEP,
    block_rows,
    expert_matrix,
    gated_ffn,
    grouped_ffn,
)
from actors.kernels.xla.layout import DenseExperts, TransposedWeight
from tests.actors.kernels.test_quantized import weight

E, D, F = 5, 8, 12
RNG = np.random.default_rng(0)
W_IN, W_VALUE, W_OUT = (
    DenseExperts(tuple(jnp.asarray(RNG.standard_normal(s) / 3, jnp.float32) for _ in range(E)))
    for s in ((F, D), (F, D), (D, F))
)
run = jax.jit(grouped_ffn)


def check(chosen: np.ndarray) -> None:
    x = np.random.default_rng(1).standard_normal((len(chosen), D)).astype(np.float32)
    rows, place = run(jnp.asarray(x), jnp.asarray(chosen), (W_IN, W_VALUE, W_OUT))
    got = np.asarray(rows)[np.asarray(place)]
    for n, x_choices in enumerate(chosen):
        for slot, e in enumerate(x_choices):
            if e < E:  # E: padding, chose none
                ws = [expert_matrix(w, int(e)) for w in (W_IN, W_VALUE, W_OUT)]
                np.testing.assert_allclose(
                    got[n, slot], gated_ffn(jnp.asarray(x[n : n + 1]), *ws)[0], rtol=0, atol=1e-5
                )
    assert np.isfinite(got).all()


@pytest.mark.slow  # compiles
@pytest.mark.parametrize(
    "chosen",
    [
        # all tokens on two experts: several blocks each, the others none
        np.tile([[2, 3]], (21, 1)),
        np.stack([np.arange(21) % E, (np.arange(21) + 1) % E], 1),
        np.where(np.arange(21)[:, None] % 3 == 0, E, [[0, 4]]),  # every third is padding
        np.full((21, 2), E),  # nothing but padding
    ],
    ids=["skewed", "even", "padded", "idle"],
)
def test_experts_match_a_loop_over_tokens(chosen: np.ndarray) -> None:
    check(chosen.astype(np.int32))


@pytest.mark.slow
def test_experts_of_a_step_longer_than_a_block() -> None:
    check(
        np.random.default_rng(3)
        .permuted(np.tile(np.arange(E), (300, 1)), axis=1)[:, :2]
        .astype(np.int32)
    )


@given(tokens=st.integers(1, 10_000), chosen=st.integers(1, 4), experts=st.integers(4, 64))
def test_block_is_bounded_and_fits_an_even_share(tokens: int, chosen: int, experts: int) -> None:
    rows = block_rows(tokens, chosen, experts)
    assert 1 <= rows <= min(tokens, LONGEST_BLOCK)
    assert rows % ROW_STEP == 0 or rows == tokens
    share = min(tokens, tokens * chosen / experts)
    if share <= LONGEST_BLOCK / 2:
        assert rows >= share  # one block is enough for an expert that gets its even share


def test_block_rows_of_typical_steps() -> None:
    assert [block_rows(tokens, chosen=2, experts=8) for tokens in (1, 8, 32, 128, 2048)] == [
        1,
        8,
        16,
        48,
        112,
    ]


def test_expert_matrix_of_every_layout() -> None:
    stacked = weight((3, 16, 5), 8)
    plain = dequantize(stacked, jnp.float32)
    one = expert_matrix(stacked, 1)
    assert isinstance(one, QuantizedWeight)
    dense = DenseExperts(tuple(jnp.matrix_transpose(plain)))
    assert plain.shape == dense.shape == (3, 16, 5)
    np.testing.assert_array_equal(expert_matrix(plain, 1), dequantize(one, jnp.float32))
    np.testing.assert_array_equal(
        expert_matrix(dense, 1), TransposedWeight(dequantize(one, jnp.float32).T)
    )
