"""Plain attention over pages: pages held as bits, and sequences computed a few at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kernels.interface import Placement
from actors.kernels.xla import attention as xla_attention

B, T, H, K, C, P, Z, J = 6, 2, 4, 2, 8, 15, 4, 2


def placement() -> Placement:
    start = np.array([0, 1, 2, 3, 5, 6])
    positions = start[:, None] + np.arange(T)
    pages = np.arange(B * J).reshape(B, J)
    page = np.take_along_axis(pages, positions // Z, axis=1)
    page[0] = P  # padding: not written
    visible = np.arange(J * Z) <= positions[..., None]
    length, live = start + T, visible.any(axis=1)
    fields = (positions, page, positions % Z, pages, length, live, visible)
    return Placement(*(jnp.asarray(f if f.dtype == bool else f.astype(np.int32)) for f in fields))


def numbers(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, jnp.bfloat16)


@pytest.mark.slow  # compiles
def test_attention_over_bits_in_batches_matches_one_batch() -> None:
    q, keys, values, where = (
        numbers(2, B, T, H, C),
        numbers(3, P, Z, K, C),
        numbers(4, P, Z, K, C),
        placement(),
    )
    values = values.at[-1].set(jnp.nan)  # a page that nobody owns
    whole = xla_attention.attend(q, keys, values, where, 0.3)
    assert np.isfinite(np.asarray(whole, np.float32)).all()
    two_sequences = 2 * J * Z * K * C * 2
    parts = xla_attention.attend_in_batches(
        q, *map(xla_attention.bits, (keys, values)), where, 0.3, two_sequences
    )
    # bfloat16
    np.testing.assert_allclose(
        np.asarray(parts, np.float32), np.asarray(whole, np.float32), rtol=0.01, atol=0.01
    )


@pytest.mark.slow  # compiles
def test_attention_in_batches_skips_rows_that_are_not_in_use() -> None:
    """A batch of empty rows is zero; the other batches keep every bit."""
    q, keys, values = numbers(2, B, T, H, C), numbers(3, P, Z, K, C), numbers(4, P, Z, K, C)
    in_use = placement()
    is_used = jnp.arange(B) < 3
    where = in_use._replace(
        live_BS=in_use.live_BS & is_used[:, None],
        visible_BTS=in_use.visible_BTS & is_used[:, None, None],
    )
    two_sequences = 2 * J * Z * K * C * 2

    def attend(placement: Placement) -> np.ndarray:
        out = xla_attention.attend_in_batches(q, keys, values, placement, 0.3, two_sequences)
        return np.asarray(out, np.float32)

    some_rows = attend(where)
    np.testing.assert_array_equal(some_rows[:3], attend(in_use)[:3])
    np.testing.assert_array_equal(some_rows[3:], 0.0)
    program = str(
        jax.make_jaxpr(
            lambda placement: xla_attention.attend_in_batches(
                q, keys, values, placement, 0.3, two_sequences
            )
        )(where)
    )
    assert "cond" in program


@given(rows=st.integers(1, 300), row_bytes=st.integers(1, 1 << 22))
def test_batch_size_divides_the_sequences_and_fits(rows: int, row_bytes: int) -> None:
    count = xla_attention.batch_size(rows, row_bytes)
    assert rows % count == 0
    assert count == 1 or count * row_bytes <= xla_attention.GATHERED_BYTES
    larger = [n for n in range(count + 1, rows + 1) if rows % n == 0]
    assert all(n * row_bytes > xla_attention.GATHERED_BYTES for n in larger)
