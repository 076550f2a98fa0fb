"""The residual stream split over "model" between blocks: other collectives, the same numbers.

Forward passes of the golden models are in test_conformance.py, beside what they are compared with.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from actors.model.config import DEMO, GROK_1
from actors.model.language_model import Step, check_activation_split, forward, init_cache
from actors.model.layers import RMSNorm, add_up, all_columns
from actors.model.sharding import make_mesh
from actors.protocol.errors import ModelError
from tests.actors.model.models import (
    TinyModel,
    assert_close,
    conformance_model,
    golden,
    prompts,
)

MESHES = [(1, 1), (1, 8), (2, 4)]
NEW_TOKENS = 4


def split_model(case: str, mesh: tuple[int, int]) -> TinyModel:
    return conformance_model(case, mesh, dense=mesh != (1, 8), shard_activations=True)


@pytest.mark.slow  # compiles
@pytest.mark.parametrize("case", ["mha", "gqa"])
@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_split_activations_match_in_pieces_and_decode(case: str, mesh: tuple[int, int]) -> None:
    """Prompts in pieces of 16 tokens, then greedy tokens one by one."""
    tiny = split_model(case, mesh)
    cache, last = tiny.cache(), np.zeros((4, tiny.config.vocab_size), np.float32)
    for begin in (0, 16, 32):
        pieces = [p[begin : begin + 16] for p in prompts(case)]
        starts = [min(begin, len(p)) for p in prompts(case)]
        outputs, cache = tiny.step(cache, pieces, start=starts, width=16)
        for i, piece in enumerate(pieces):
            if piece:
                last[i] = outputs.logits[i, len(piece) - 1]
                assert_close(
                    last[i], golden(case)[f"p{i}_logits"][begin + len(piece) - 1], atol=1e-3
                )
    for step in range(NEW_TOKENS):
        token = last.argmax(-1)
        for i in range(4):
            if (golden(case)[f"p{i}_gen_gap"][: step + 1] >= 5e-3).all():
                assert token[i] == golden(case)[f"p{i}_gen_tokens"][step]
        outputs, cache = tiny.step(
            cache, token[:, None].tolist(), start=[len(p) + step for p in prompts(case)]
        )
        last = outputs.logits[:, 0]
    assert_close(outputs.logits[2, 0], golden(case)["p2_gen_logits"][NEW_TOKENS], atol=1e-3)


def on_eight(
    body: Callable[..., Any], out: PartitionSpec, *specs: PartitionSpec
) -> Callable[..., Any]:
    return jax.jit(
        jax.shard_map(body, mesh=make_mesh(1, 8), in_specs=specs, out_specs=out, check_vma=False)
    )


COLUMNS, EVERYWHERE = PartitionSpec(None, "model"), PartitionSpec()
X = np.random.default_rng(5).standard_normal((3, 48)).astype(np.float32)


def test_split_norm_matches_the_norm_of_complete_rows() -> None:
    scale = jnp.asarray(np.random.default_rng(6).standard_normal(48), jnp.float32)

    def norm(x: Any, scale: Any, split: int) -> Any:
        def run(x: Any) -> Any:
            return RMSNorm("n", split)(x)

        return hk.transform(run).apply({"n": {"scale": scale}}, None, x)

    split = on_eight(partial(norm, split=8), COLUMNS, COLUMNS, EVERYWHERE)(X, scale)
    whole = on_eight(partial(norm, split=1), EVERYWHERE, EVERYWHERE, EVERYWHERE)(X, scale)
    assert_close(split, whole, atol=1e-6)
    assert split.sharding.shard_shape(split.shape) == (3, 6)
    # summed in float32: in bfloat16 itself 47 small squares beside a large one would vanish
    spiky = jnp.asarray(np.where(np.arange(48) == 0, 16.0, 0.7)[None], jnp.bfloat16)
    out = on_eight(partial(norm, split=8), COLUMNS, COLUMNS, EVERYWHERE)(spiky, jnp.ones(48))
    exact = np.asarray(spiky, np.float64) / np.sqrt(
        (np.asarray(spiky, np.float64) ** 2).mean() + 1e-5
    )
    assert out.dtype == jnp.bfloat16
    assert np.abs(np.asarray(out, np.float64) / exact - 1).max() < 2**-8


def test_add_up_scatters_in_order_and_all_columns_gathers() -> None:
    # one summand per device
    parts = np.random.default_rng(7).integers(-9, 9, (8, 3, 48)).astype(np.float32)

    def body(part: Any) -> Any:
        mine = add_up(part[0], 8)
        return all_columns(mine, 8) - add_up(part[0], 1), mine

    difference, columns = on_eight(body, (EVERYWHERE, COLUMNS), PartitionSpec("model"))(parts)  # type: ignore[arg-type]
    np.testing.assert_array_equal(difference, 0)
    np.testing.assert_array_equal(columns, parts.sum(0))


def test_width_that_does_not_divide_raises_with_the_numbers() -> None:
    narrow = replace(DEMO, emb_size=60)
    words = (
        r"shard_activations: mesh axis model = 8 does not divide the model's emb_size 60; "
        r"turn shard_activations off"
    )
    with pytest.raises(ModelError, match=words):
        check_activation_split(narrow, 8)
    one = jnp.zeros(1, jnp.int32)
    step, cache = (
        Step(one[:, None], one, one, one[:, None]),
        init_cache(narrow, pages=1, page_size=8, dtype="float32", model_shards=8),
    )
    sizes: Any = {"config": narrow, "dtype": jnp.float32, "model_shards": 8}
    with pytest.raises(ModelError, match=words):
        forward({}, step, cache, **sizes, shard_activations=True)
    check_activation_split(narrow, 4)
    check_activation_split(GROK_1, 8)
