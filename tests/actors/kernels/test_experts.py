"""Experts of both platforms against one oracle; the GPU's kernels run in the interpreter."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kernels.gpu import experts as gpu_experts
from actors.kernels.gpu.experts import cut_tiles, tile_shape
from actors.kernels.interface import Experts
from actors.kernels.xla import experts as xla_experts
from actors.protocol.errors import ModelError
from tests.actors.kernels.oracle import arranged, expert_rows, quantized_experts

E, D, F, TOKENS = 4, 32, 96, 40
ROUTINGS = {
    "even": np.stack([np.arange(TOKENS) % E, (np.arange(TOKENS) + 1) % E], 1),
    "skewed": np.tile([[2, 3]], (TOKENS, 1)),  # several tiles of two experts, none of the others
    "padded": np.where(np.arange(TOKENS)[:, None] % 3 == 0, E, [[0, 3]]),
    "idle": np.full((TOKENS, 2), E),
    "one": np.array([[1, 0]]),
}
on_gpu = jax.jit(partial(gpu_experts.grouped_ffn, interpret=True))
on_xla = jax.jit(xla_experts.grouped_ffn)


def activations(tokens: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((tokens, D)).astype(np.float32)


def computed(
    x_ND: np.ndarray, chosen: np.ndarray, weights: Experts, *, gpu: bool, dtype: str = "float32"
) -> np.ndarray:
    """Returns every (token, choice)'s row, zero where the choice is no expert."""
    run, given_weights = (on_gpu, arranged(weights)) if gpu else (on_xla, weights)
    rows, place = run(jnp.asarray(x_ND, dtype), jnp.asarray(chosen, jnp.int32), given_weights)
    return np.where(
        chosen[..., None] < E, np.asarray(rows.astype(jnp.float32))[np.asarray(place)], 0
    )


@pytest.mark.slow  # compiles
@pytest.mark.parametrize("gpu", [False, True], ids=["xla", "gpu"])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_every_token_meets_its_experts_and_no_other(routing: str, gpu: bool) -> None:
    chosen, weights = ROUTINGS[routing], quantized_experts(E, D, F)
    x = activations(len(chosen))
    np.testing.assert_allclose(
        computed(x, chosen, weights, gpu=gpu), expert_rows(x, chosen, weights), rtol=0, atol=2e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("gpu", [False, True], ids=["xla", "gpu"])
@pytest.mark.parametrize(("ffn", "groups"), [(72, 8), (200, 4)])
def test_groups_of_scales_and_widths_that_no_tile_divides(ffn: int, groups: int, gpu: bool) -> None:
    chosen, weights = ROUTINGS["even"], quantized_experts(E, D, ffn, groups)
    x = activations(TOKENS)
    np.testing.assert_allclose(
        computed(x, chosen, weights, gpu=gpu), expert_rows(x, chosen, weights), rtol=0, atol=2e-5
    )


@pytest.mark.slow
def test_both_platforms_round_alike_in_bfloat16() -> None:
    chosen, weights, x = ROUTINGS["even"], quantized_experts(E, D, F), activations(TOKENS)
    gpu, xla = (computed(x, chosen, weights, gpu=gpu, dtype="bfloat16") for gpu in (True, False))
    np.testing.assert_allclose(gpu, xla, rtol=2**-7, atol=2**-8)  # one step of bfloat16


@pytest.mark.slow
def test_a_row_does_not_depend_on_its_batch_mates() -> None:
    weights, x = quantized_experts(E, D, F), activations(TOKENS)
    alone = computed(x, ROUTINGS["even"], weights, gpu=True)
    others = np.array(ROUTINGS["even"])
    others[1:] = [3, 1]  # the first token's neighbours all crowd onto other experts
    np.testing.assert_array_equal(computed(x, others, weights, gpu=True)[0], alone[0])


def test_weights_that_were_not_arranged_are_refused() -> None:
    with pytest.raises(ModelError, match=r"went through `arrange`, got QuantizedWeight"):
        gpu_experts.grouped_ffn(
            jnp.zeros((2, D)), jnp.zeros((2, 2), jnp.int32), quantized_experts(E, D, F)
        )


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 75), min_size=8, max_size=8), rows=st.sampled_from([16, 32]))
def test_tiles_cover_each_experts_rows_once(counts: list[int], rows: int) -> None:
    assignments = 8 * 75  # those that are nobody's are padding
    expert, begin, end = map(
        np.asarray, cut_tiles(jnp.asarray(np.cumsum(counts), jnp.int32), assignments, rows)
    )
    covered = [
        (int(e), row)
        for e, first, last in zip(expert, begin, end, strict=True)
        for row in range(first, last)
    ]
    assert covered == [
        (int(owner), row) for row, owner in enumerate(np.repeat(np.arange(8), counts))
    ]
    assert (end - begin).max() <= rows
    assert len(expert) <= assignments // rows + 8


@given(rows=st.integers(1, 100_000), experts=st.integers(1, 64))
def test_tiles_are_what_tensor_cores_take(rows: int, experts: int) -> None:
    tile = tile_shape(rows, experts)
    for size in (tile.rows, tile.columns, tile.depth):
        assert 16 <= size <= 128
        assert size & (size - 1) == 0
