"""The GPU's experts, run in the interpreter, and those of plain XLA, against one oracle."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.kernels.gpu import experts as gpu_experts
from actors.kernels.gpu.experts import layer_tiles
from actors.kernels.interface import Experts
from actors.kernels.xla import experts as xla_experts
from actors.protocol.errors import ModelError
from tests.actors.kernels.oracle import expert_rows, packed_for_gpu, quantized_experts

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
    run, given_weights = (on_gpu, packed_for_gpu(weights)) if gpu else (on_xla, weights)
    rows, place = run(jnp.asarray(x_ND, dtype), jnp.asarray(chosen, jnp.int32), given_weights)
    return np.where(
        chosen[..., None] < E, np.asarray(rows.astype(jnp.float32))[np.asarray(place)], 0
    )


@pytest.mark.slow  # compiles
@pytest.mark.parametrize("gpu", [False, True], ids=["xla", "gpu"])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_experts_match_the_oracle_for_any_kind_of_routing(routing: str, gpu: bool) -> None:
    chosen, weights = ROUTINGS[routing], quantized_experts(E, D, F)
    x = activations(len(chosen))
    np.testing.assert_allclose(
        computed(x, chosen, weights, gpu=gpu), expert_rows(x, chosen, weights), rtol=0, atol=2e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("gpu", [False, True], ids=["xla", "gpu"])
@pytest.mark.parametrize(("ffn", "groups"), [(72, 8), (200, 4)])
def test_experts_with_scale_groups_and_widths_no_tile_divides(
    ffn: int, groups: int, gpu: bool
) -> None:
    chosen, weights = ROUTINGS["even"], quantized_experts(E, D, ffn, groups)
    x = activations(TOKENS)
    np.testing.assert_allclose(
        computed(x, chosen, weights, gpu=gpu), expert_rows(x, chosen, weights), rtol=0, atol=2e-5
    )


@pytest.mark.slow
def test_experts_round_as_plain_xla_does_in_bfloat16() -> None:
    chosen, weights, x = ROUTINGS["even"], quantized_experts(E, D, F), activations(TOKENS)
    gpu, xla = (computed(x, chosen, weights, gpu=gpu, dtype="bfloat16") for gpu in (True, False))
    np.testing.assert_allclose(gpu, xla, rtol=2**-7, atol=2**-8)  # one step of bfloat16


@pytest.mark.slow
def test_row_does_not_depend_on_the_rest_of_the_batch() -> None:
    weights, x = quantized_experts(E, D, F), activations(TOKENS)
    alone = computed(x, ROUTINGS["even"], weights, gpu=True)
    others = np.array(ROUTINGS["even"])
    others[1:] = [3, 1]  # the first token's neighbours all crowd onto other experts
    np.testing.assert_array_equal(computed(x, others, weights, gpu=True)[0], alone[0])


def test_experts_in_another_layout_raise() -> None:
    with pytest.raises(
        ModelError, match="got weights as QuantizedWeight, expected TransposedExperts"
    ):
        gpu_experts.grouped_ffn(
            jnp.zeros((2, D)), jnp.zeros((2, 2), jnp.int32), quantized_experts(E, D, F)
        )


@pytest.mark.slow  # compiles
@pytest.mark.parametrize("counts", [[40, 0, 0, 0], [0, 0, 0, 40], [17, 17, 1, 5], [33, 1, 1, 5]])
def test_experts_match_the_oracle_at_the_borders_of_tiles(counts: list[int]) -> None:
    """One choice per token and no padding, so that a tile too few is a row that nobody computes."""
    chosen = np.random.default_rng(3).permutation(np.repeat(np.arange(E), counts))[:, None]
    weights, x = quantized_experts(E, D, F), activations(TOKENS)
    expected = expert_rows(x, chosen, weights)
    np.testing.assert_allclose(computed(x, chosen, weights, gpu=True), expected, rtol=0, atol=2e-5)


@given(
    rows=st.integers(1, 100_000),
    experts=st.integers(1, 64),
    dtype=st.sampled_from([jnp.bfloat16, jnp.float32]),
)
def test_tile_sizes_are_those_of_tensor_cores(rows: int, experts: int, dtype: Any) -> None:
    tiles = layer_tiles(rows, experts, dtype)
    assert tiles.gate_value.rows == tiles.out.rows
    for tile in tiles:
        for size in (tile.rows, tile.columns, tile.depth):
            assert 16 <= size <= 256
            assert size & (size - 1) == 0


@pytest.mark.parametrize(
    ("slots", "rows"), [(8, 16), (32, 16), (64, 32), (128, 64), (256, 64), (512, 64), (1024, 128)]
)
def test_tiles_of_decode_have_at_most_64_rows(slots: int, rows: int) -> None:
    assert layer_tiles(2 * slots, 8, jnp.bfloat16).out.rows == rows
