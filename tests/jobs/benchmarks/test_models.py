"""models.py: the shard of Grok-1, and random parameters in the layout of an engine."""

import jax.numpy as jnp
import pytest

from actors.kernels.gpu.layout import TransposedExperts
from actors.kernels.gpu.platform import INTERPRETED
from actors.model.config import GROK_1, parameter_shapes
from actors.model.sharding import make_mesh
from jobs.benchmarks.models import (
    GROK_1_SHARD,
    MODELS,
    TINY_SHARD,
    TensorLayout,
    random_params,
    tensor_layouts,
)


def test_shard_is_an_eighth_of_grok_1() -> None:
    shard, whole = parameter_shapes(GROK_1_SHARD), parameter_shapes(GROK_1)
    split = [
        tensor.path for tensor in whole if {"vocab", "heads", "kv_heads", "ffn"} & set(tensor.axes)
    ]
    for one, all_eight in zip(shard, whole, strict=True):
        size = one.shape and len(one.shape) and jnp.prod(jnp.array(one.shape, jnp.float32))
        parts = jnp.prod(jnp.array(all_eight.shape, jnp.float32)) / size
        assert parts == (8 if one.path in split else 1), one.path


@pytest.mark.parametrize("layers", [2, 8, 64])
def test_shard_holds_one_group_of_scales_with_any_number_of_layers(layers: int) -> None:
    tensors = MODELS["grok-1-shard"].with_layers(layers).tensors()

    assert len(tensors) == 12 * layers + 2
    assert {tensor.scale_groups for tensor in tensors} == {None, 1}
    assert {tensor.scale_groups for tensor in MODELS["small"].tensors()} == {None, 1, 8}


def test_tensors_of_all_layers_are_made_by_one_program_per_layout() -> None:
    mesh = make_mesh(1, 1)
    programs: dict[int, set[TensorLayout]] = {}
    for layers in (1, 64):
        model = MODELS["grok-1-shard"].with_layers(layers)
        programs[layers] = {layout for _, layout in tensor_layouts(model, mesh)}

    assert programs[1] == programs[64]
    # gate and value have one layout, and so are key and value, and all norms
    assert len(programs[64]) == 8


@pytest.mark.slow
def test_random_weights_have_the_layout_of_the_gpu_kernels() -> None:
    mesh = make_mesh(1, 1)
    model = MODELS["tiny-shard"].with_layers(1)
    params = random_params(model, mesh, jnp.bfloat16, dense=False, platform=INTERPRETED)
    experts = params["transformer/decoder_layer_0/moe/linear_1"]["w"]
    assert isinstance(experts, TransposedExperts)
    assert experts.weight.shape == (8, TINY_SHARD.emb_size, TINY_SHARD.ffn_size)
    assert params["language_model/in_out_embed"]["embeddings"].dtype == jnp.bfloat16
