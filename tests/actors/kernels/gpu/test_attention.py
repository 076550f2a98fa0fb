"""The GPU's attention, run in the interpreter, and that of plain XLA, against one oracle."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kernels.gpu import attention as gpu_attention
from actors.kernels.gpu.attention import MAX_ROWS, divide
from actors.kernels.xla import attention as xla_attention
from actors.protocol.errors import ModelError
from tests.actors.kernels.oracle import Paged, attention, paged

MULTIPLIER = 0.4  # with the oracle's queries: far into the cap
CASES: dict[str, dict[str, Any]] = {
    "decode": {
        "start": [140, 0, 16, 7],
        "count": [1, 0, 1, 1],
        "new": 1,
        "heads": 6,
        "kv_heads": 1,
        "page_size": 16,
        "table": 9,
    },
    "prefill": {
        "start": [128, 0, 3],
        "count": [16, 5, 16],
        "new": 16,
        "heads": 8,
        "kv_heads": 2,
        "page_size": 16,
        "table": 10,
    },
    "many queries": {
        "start": [30, 0],
        "count": [40, 40],
        "new": 40,
        "heads": 12,
        "kv_heads": 2,
        "page_size": 8,
        "table": 11,
    },
    "small pages": {
        "start": [9, 0],
        "count": [1, 1],
        "new": 1,
        "heads": 2,
        "kv_heads": 2,
        "page_size": 1,
        "table": 12,
    },
}
on_gpu = jax.jit(partial(gpu_attention.attend, interpret=True), static_argnums=4)
on_xla = jax.jit(xla_attention.attend, static_argnums=4)


def computed(case: Paged, *, gpu: bool, dtype: str = "float32") -> np.ndarray:
    arrays = (jnp.asarray(array, dtype) for array in (case.q, case.keys, case.values))
    return np.asarray(
        (on_gpu if gpu else on_xla)(*arrays, case.placement, MULTIPLIER).astype(jnp.float32)
    )


@pytest.mark.slow  # compiles
@pytest.mark.parametrize("gpu", [False, True], ids=["xla", "gpu"])
@pytest.mark.parametrize("name", CASES)
def test_attention_sees_visible_keys_only(name: str, gpu: bool) -> None:
    """Pages hold NaN wherever no key lies.

    A third of the tokens is pad; queries of idle rows see nothing.
    """
    case = paged(width=16, **CASES[name])
    expected, got = attention(case, MULTIPLIER), computed(case, gpu=gpu)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    blind = ~np.asarray(case.placement.visible_BTS).any(-1)
    assert blind.any() == (name in {"decode", "prefill"})
    assert (got[blind] == 0).all()


@pytest.mark.slow
def test_attention_rounds_as_plain_xla_does_in_bfloat16() -> None:
    case = paged(width=16, **CASES["prefill"])
    gpu, xla = (computed(case, gpu=gpu, dtype="bfloat16") for gpu in (True, False))
    np.testing.assert_allclose(gpu, xla, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("page_size", "width"), [(24, 16), (128, 16), (16, 24), (16, 8)])
def test_attention_of_unsupported_sizes_raises(page_size: int, width: int) -> None:
    case = paged([3], [1], new=1, heads=2, kv_heads=1, width=width, page_size=page_size, table=1)
    with pytest.raises(
        ModelError, match=r"attention on a GPU: (page_size|key_size) must be a power of two"
    ):
        gpu_attention.attend(
            *map(jnp.asarray, (case.q, case.keys, case.values)),
            case.placement,
            MULTIPLIER,
            interpret=True,
        )


@given(
    queries=st.integers(1, 600),
    sequences=st.integers(1, 300),
    heads=st.integers(1, 8),
    table=st.integers(1, 600),
    page_size=st.sampled_from([1, 4, 16, 64]),
    dtype=st.sampled_from([jnp.bfloat16, jnp.float32]),
)
def test_divide_covers_all_queries_and_pages(
    queries: int, sequences: int, heads: int, table: int, page_size: int, dtype: Any
) -> None:
    shape = divide(queries, sequences, heads, table, page_size, dtype)
    assert shape.rows * shape.row_blocks >= queries > shape.rows * (shape.row_blocks - 1)
    assert 16 <= shape.rows <= MAX_ROWS
    covered = shape.parts * shape.steps * shape.pages
    assert covered >= table
    # no part without any page of the table
    assert covered - table < shape.steps * shape.pages + shape.pages
