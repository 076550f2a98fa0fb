"""Layers on tiny arrays: norms and the embedding against float64 NumPy."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from actors.model.layers import InOutEmbed, RMSNorm
from actors.model.sharding import make_mesh
from tests.actors.kernels.oracle import exact_norm

RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (3, 16)).astype(np.float32)
SCALE = RNG.normal(1, 0.5, 16).astype(np.float32)
TABLE = RNG.normal(0, 1, (8, 4)).astype(np.float32)
EVERYWHERE = PartitionSpec()
ROWS = PartitionSpec("model")


def norm(x: Any, scale: Any) -> Any:
    def run(x: Any) -> Any:
        return RMSNorm("norm")(x)

    return hk.transform(run).apply({"norm": {"scale": jnp.asarray(scale)}}, None, jnp.asarray(x))


def test_rms_norm_equals_float64() -> None:
    np.testing.assert_allclose(norm(X, SCALE), exact_norm(X, SCALE), rtol=1e-6)


def test_rms_norm_adds_epsilon_under_the_root() -> None:
    small = np.full((1, 16), 1e-3, np.float32)
    ones = np.ones(16, np.float32)
    np.testing.assert_allclose(norm(small, ones), 1e-3 / np.sqrt(1.1e-5), rtol=1e-5)
    np.testing.assert_array_equal(norm(np.zeros((1, 16), np.float32), ones), 0)


def test_rms_norm_of_bfloat16_is_rounded_once() -> None:
    rounded = np.asarray(jnp.asarray(X, jnp.bfloat16))
    result = norm(rounded, SCALE)
    assert result.dtype == jnp.bfloat16
    exact = exact_norm(np.asarray(rounded, np.float32), SCALE)
    np.testing.assert_allclose(np.asarray(result, np.float64), exact, rtol=2**-8)


@pytest.mark.parametrize("shards", [1, 4])
def test_embedding_encodes_tokens_of_every_device(shards: int) -> None:
    tokens = np.array([[0, 7, 3], [2, 2, 5]], np.int32)

    def run(tokens: Any) -> Any:
        return InOutEmbed(8 // shards, 4, name="embed").encode(tokens, jnp.float32)

    def body(table: Any, tokens: Any) -> Any:
        return hk.transform(run).apply({"embed": {"embeddings": table}}, None, tokens)

    mapped = jax.shard_map(
        body, mesh=make_mesh(1, shards), in_specs=(ROWS, EVERYWHERE), out_specs=EVERYWHERE
    )
    np.testing.assert_array_equal(mapped(jnp.asarray(TABLE), jnp.asarray(tokens)), TABLE[tokens])


def test_embedding_decodes_with_the_same_table() -> None:
    def run(hidden: Any) -> Any:
        return InOutEmbed(8, 4, name="embed").decode(hidden)

    params = {"embed": {"embeddings": jnp.asarray(TABLE)}}
    logits = hk.transform(run).apply(params, None, jnp.asarray(TABLE[:3]))
    exact = TABLE[:3].astype(np.float64) @ TABLE.T.astype(np.float64)
    np.testing.assert_allclose(logits, exact, rtol=1e-5, atol=1e-6)
