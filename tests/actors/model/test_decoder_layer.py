"""The decoder layer over kernels with simple results: norms and sums against float64."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from actors.kernels.interface import Placement
from actors.kernels.xla.platform import XLA
from actors.model.decoder_layer import DecoderLayer
from actors.model.layers import RMSNorm, Update, add_update
from actors.model.sharding import make_mesh
from tests.actors.model.models import TINY_CONFIG as CONFIG

SHAPE = (2, 4, CONFIG.num_kv_heads, CONFIG.key_size)  # of pages
ROWS = 2
TOKENS = 3
REAL = np.array([[True, True, True], [True, False, True]])
RNG = np.random.default_rng(0)
STREAM = RNG.normal(0, 1, (ROWS, TOKENS, 8)).astype(np.float32)
NORMS = RNG.normal(1, 0.3, (4, 8)).astype(np.float32)
OUTPUT = RNG.normal(0, 1, (16, 8)).astype(np.float32)
ROUTER = RNG.normal(0, 1, (8, CONFIG.num_experts)).astype(np.float32)


def attend_ones(q_BTHC: Any, keys: Any, values: Any, where: Any, multiplier: Any) -> Any:
    """Returns ones: the block then returns the sums of its output projection's columns."""
    return jnp.ones_like(q_BTHC)


def repeat_tokens(x_ND: Any, chosen_NX: Any, experts: Any) -> Any:
    """Returns each token itself: the block then returns tokens times the sum of their gates."""
    tokens, choices = chosen_NX.shape
    return jnp.repeat(x_ND, choices, axis=0), jnp.arange(tokens * choices).reshape(tokens, choices)


def parameters() -> dict[str, dict[str, Any]]:
    width = CONFIG.num_q_heads * CONFIG.key_size
    kv_width = CONFIG.num_kv_heads * CONFIG.key_size
    inner = (CONFIG.num_experts, 8, CONFIG.ffn_size)
    outer = (CONFIG.num_experts, CONFIG.ffn_size, 8)
    weights = {
        "multi_head_attention/query": np.zeros((8, width)),
        "multi_head_attention/key": np.ones((8, kv_width)),
        "multi_head_attention/value": np.ones((8, kv_width)),
        "multi_head_attention/linear": OUTPUT,
        "moe/linear": np.zeros(inner),
        "moe/linear_v": np.zeros(inner),
        "moe/linear_1": np.zeros(outer),
        "router": ROUTER,
    }
    params = {}
    for name, weight in weights.items():
        params[f"layer/{name}"] = {"w": jnp.asarray(weight, jnp.float32)}
    for name, scale in zip(("", "_1", "_2", "_3"), NORMS, strict=True):
        params[f"layer/rms_norm{name}"] = {"scale": jnp.asarray(scale)}
    params["last_norm"] = {"scale": jnp.asarray(NORMS[3])}
    return params


def placement() -> Placement:
    positions = jnp.tile(jnp.arange(TOKENS, dtype=jnp.int32), (ROWS, 1))
    pages = jnp.tile(jnp.arange(ROWS, dtype=jnp.int32)[:, None], (1, TOKENS))
    pages = jnp.where(REAL, pages, SHAPE[0])
    table = jnp.arange(ROWS, dtype=jnp.int32)[:, None]
    length = jnp.full(ROWS, TOKENS, jnp.int32)
    live = jnp.ones((ROWS, SHAPE[1]), jnp.bool_)
    visible = jnp.ones((ROWS, TOKENS, SHAPE[1]), jnp.bool_)
    return Placement(positions, pages, positions, table, length, live, visible)


def run_layer(last_result: np.ndarray | None = None) -> list[np.ndarray]:
    """Returns the stream after the layer, and its pages.

    Args:
        last_result: result of the layer before, normed by `last_norm` ahead of the first norm.
    """

    def run(stream: Any, keys: Any, values: Any, where: Any, real: Any) -> Any:
        kernels = XLA.kernels._replace(grouped_ffn=repeat_tokens, attend=attend_ones)
        layer = DecoderLayer(CONFIG, 1, kernels, name="layer")
        update = None
        if last_result is not None:
            update = Update(jnp.asarray(last_result), RMSNorm(name="last_norm"))
        h, update, keys, values = layer(stream, update, keys, values, where, real)
        return add_update(h, update), keys, values

    params = parameters()
    mapped = jax.shard_map(
        lambda *arguments: hk.transform(run).apply(params, None, *arguments),
        mesh=make_mesh(1, 1),
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    pages = jnp.zeros(SHAPE, jnp.float32)
    arrays = mapped(jnp.asarray(STREAM), pages, pages, placement(), jnp.asarray(REAL))
    return [np.asarray(array) for array in arrays]


def norm(x: np.ndarray, number: int) -> np.ndarray:
    mean_square = (x**2).mean(axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + 1e-5) * NORMS[number].astype(np.float64)  # type: ignore[no-any-return]


def test_layer_adds_both_blocks_between_their_norms() -> None:
    out, _, _ = run_layer()
    stream = STREAM.astype(np.float64)
    attended = OUTPUT.astype(np.float64).sum(axis=0)
    for row in range(ROWS):
        for number in range(TOKENS):
            after_attention = stream[row, number] + norm(attended, 1)
            token = norm(after_attention, 2)
            shares = np.exp(token @ ROUTER) / np.exp(token @ ROUTER).sum()
            mixed = token * np.sort(shares)[-CONFIG.num_selected_experts :].sum()
            if not REAL[row, number]:
                mixed = np.zeros(8)  # padding runs no expert
            expected = after_attention + norm(mixed, 3)
            np.testing.assert_allclose(out[row, number], expected, atol=1e-4)


def test_layer_writes_pages_of_real_tokens_from_the_first_norm() -> None:
    _, keys, values = run_layer()
    first_norm = norm(STREAM.astype(np.float64), 0)
    for row in range(ROWS):
        for number in range(TOKENS):
            expected = 0.0
            if REAL[row, number]:
                expected = first_norm[row, number].sum()
            np.testing.assert_allclose(values[row, number], expected, atol=1e-5)
            assert keys[row, number].any() == REAL[row, number]


def test_layer_adds_the_update_of_the_last_one_before_its_first_norm() -> None:
    last_result = STREAM[::-1] * 3
    out, _, values = run_layer(last_result)
    update = norm(last_result.astype(np.float64), 3)
    summed = STREAM.astype(np.float64) + update
    first_norm = norm(summed, 0)
    for row, number in zip(*np.nonzero(REAL), strict=True):
        np.testing.assert_allclose(
            values[row, number], first_norm[row, number].sum(), atol=1e-5, rtol=1e-5
        )
    # padding runs no expert: its stream shows the sum and the attention alone
    attended = norm(OUTPUT.astype(np.float64).sum(axis=0), 1)
    np.testing.assert_allclose(out[~REAL], (summed + attended)[~REAL], atol=1e-4)
