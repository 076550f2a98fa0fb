"""Inputs of the step functions without numbers: the shapes, types and shards of real ones."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from actors.engine.config import EngineConfig
from actors.engine.packing import PackedRows
from actors.engine.planning.abstract import (
    abstract_cache,
    abstract_parameters,
    bytes_per_device,
    decode_input,
    gpu_parameters,
    prefill_input,
    score_input,
)
from actors.engine.steps import EngineContext
from actors.kernels.gpu.layout import pack_for_device
from actors.model.sharding import make_mesh
from actors.weights import checkpoint
from tests.actors.engine.engines import CONFORMANCE, model_config

CONFIG = model_config("mha")
CHECKPOINT = CONFORMANCE / "mha" / "ckpt-0"
ROWS = 3
WIDTH = 5


def context_of(
    mesh: tuple[int, int],
    dtype: str = "bfloat16",
    parameters: tuple[str, ...] = (),
    *,
    shard_activations: bool = False,
) -> EngineContext:
    engine = EngineConfig(
        64,
        chunk=8,
        page_size=4,
        sampling_parameters=parameters,
        shard_activations=shard_activations,
    )
    return EngineContext(CONFIG, engine, jnp.dtype(dtype), make_mesh(*mesh))


def placements(tree: Any) -> Any:
    """Returns shape, type and shape of a device's shard of every array of a tree."""
    return jax.tree.map(
        lambda array: (array.shape, array.dtype.name, array.sharding.shard_shape(array.shape)),
        tree,
    )


@pytest.mark.parametrize("mesh", [(1, 1), (1, 8), (2, 4)])
def test_abstract_parameters_match_a_loaded_checkpoint(mesh: tuple[int, int]) -> None:
    devices = make_mesh(*mesh)
    loaded = checkpoint.load(CHECKPOINT, CONFIG, devices)
    assert placements(abstract_parameters(CONFIG, devices)) == placements(loaded)


def test_gpu_parameters_match_packed_weights() -> None:
    context = context_of((1, 8))
    loaded = checkpoint.load(CHECKPOINT, CONFIG, context.mesh)
    packed = pack_for_device(loaded, jnp.bfloat16)
    assert placements(gpu_parameters(context)) == placements(packed)


@pytest.mark.parametrize("mesh", [(1, 1), (2, 4)])
def test_abstract_cache_has_pages_of_every_data_shard(mesh: tuple[int, int]) -> None:
    data_shards, model_shards = mesh
    context = context_of(mesh, "float32")
    cache = abstract_cache(context, pages_per_data_shard=6)
    assert len(cache.keys) == len(cache.values) == CONFIG.num_layers
    for pages in (*cache.keys, *cache.values):
        assert pages.shape == (6 * data_shards, 4, CONFIG.num_kv_heads, CONFIG.key_size)
        local_heads = CONFIG.num_kv_heads // model_shards
        assert pages.sharding.shard_shape(pages.shape) == (6, 4, local_heads, CONFIG.key_size)
        assert pages.dtype == context.cache_dtype
    assert cache.tokens.shape == (6 * data_shards, 4)
    assert cache.tokens.sharding.shard_shape(cache.tokens.shape) == (6, 4)


def test_prefill_input_has_a_chunk_per_row_of_every_data_shard() -> None:
    step = prefill_input(context_of((2, 4)), ROWS, WIDTH)
    assert step.tokens.shape == (2 * ROWS, 8)
    assert step.start.shape == step.count.shape == (2 * ROWS,)
    assert step.pages.shape == (2 * ROWS, WIDTH)
    for array in step:
        assert array.dtype == jnp.int32
        local_shape = (ROWS, *array.shape[1:])
        assert array.sharding.shard_shape(array.shape) == local_shape


@pytest.mark.parametrize("parameters", [(), ("logit_bias", "bad_words")])
def test_decode_input_has_arrays_of_the_logits_processors(parameters: tuple[str, ...]) -> None:
    context = context_of((2, 1), parameters=parameters)
    packed = decode_input(context, ROWS, WIDTH)
    words: Any = packed.words
    assert words.sharding.shard_shape(words.shape) == (ROWS, packed.layout.words)
    call = jax.eval_shape(PackedRows.unpack, packed)
    assert call.pages.shape == (2 * ROWS, WIDTH)
    assert call.stops_at_eos.dtype == jnp.bool_
    assert call.sampling.seed.shape == (2 * ROWS, 2)
    host_arrays = context.logits_chain.host_arrays([None] * (2 * ROWS))
    assert len(call.processors) == len(parameters)
    abstract_leaves = jax.tree.leaves(call.processors)
    for abstract, array in zip(abstract_leaves, jax.tree.leaves(host_arrays), strict=True):
        assert (abstract.shape, abstract.dtype) == (array.shape, array.dtype)


@pytest.mark.parametrize(("shards_activations", "model_shards"), [(False, 1), (True, 4)])
def test_score_input_has_hidden_states_of_a_prefill(
    shards_activations: bool, model_shards: int
) -> None:
    context = context_of((2, 4), shard_activations=shards_activations)
    hidden, positions, targets = score_input(context, ROWS, 7)
    assert hidden.shape == (2 * ROWS, 8, CONFIG.emb_size)
    assert hidden.dtype == jnp.bfloat16
    local_shape = (ROWS, 8, CONFIG.emb_size // model_shards)
    assert hidden.sharding.shard_shape(hidden.shape) == local_shape
    assert positions.shape == targets.shape == (14,)


def test_bytes_per_device_count_the_local_shard() -> None:
    mesh = make_mesh(2, 4)

    def array(spec: PartitionSpec, dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((8, 16), dtype, sharding=NamedSharding(mesh, spec))

    assert bytes_per_device(array(PartitionSpec(), jnp.float32)) == 8 * 16 * 4
    assert bytes_per_device(array(PartitionSpec("data", "model"), jnp.int8)) == 4 * 4
    tree = {
        "a": array(PartitionSpec(None, "model"), jnp.bfloat16),
        "b": array(PartitionSpec("data"), jnp.int8),
    }
    assert bytes_per_device(tree) == 8 * 4 * 2 + 4 * 16


def test_bytes_per_device_match_loaded_parameters() -> None:
    mesh = make_mesh(2, 4)
    loaded = checkpoint.load(CHECKPOINT, CONFIG, mesh)
    first_shards = [array.addressable_shards[0].data for array in jax.tree.leaves(loaded)]
    size = sum(np.asarray(shard).nbytes for shard in first_shards)
    assert bytes_per_device(abstract_parameters(CONFIG, mesh)) == size
