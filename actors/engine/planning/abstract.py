"""Inputs of the step functions as shapes without numbers: weights, cache, and each call's arrays.

Input: an `EngineContext` (its mesh may be of devices that only compile). Output: trees of
`jax.ShapeDtypeStruct` with shardings. Allocates nothing.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from actors.engine.packing import PackedRows, layout_of
from actors.engine.sampling import SamplingArrays
from actors.engine.steps import ROWS, DecodeInput, EngineContext, hidden_spec
from actors.kernels.gpu.layout import TransposedExperts, transposed_spec
from actors.kernels.quantized import QuantizedWeight
from actors.model.config import ModelConfig, TensorSpec, parameter_shapes
from actors.model.language_model import Cache, Step, cache_specs, init_cache
from actors.model.sharding import parameter_specs, sharded_groups


def abstract_parameters(config: ModelConfig, mesh: Mesh) -> dict[str, dict[str, Any]]:
    """Returns the parameters as `checkpoint.load` places them.

    Weights are int8; their scales are repeated as often as the mesh needs it.
    """
    specs = parameter_specs(config)
    params: dict[str, dict[str, Any]] = {}
    for tensor in parameter_shapes(config):
        spec = specs[tensor.module][tensor.name]
        params.setdefault(tensor.module, {})[tensor.name] = _weight(tensor, mesh, spec)
    return params


def _weight(tensor: TensorSpec, mesh: Mesh, spec: Any) -> Any:
    if tensor.scales_shape is None:
        return _array(mesh, spec, tensor.shape, jnp.float32)
    *stack, groups, columns = tensor.scales_shape
    group_axis = spec.scales[-2]
    if group_axis is not None:
        groups = sharded_groups(groups, mesh.shape[group_axis])
    scales = _array(mesh, spec.scales, (*stack, groups, columns), jnp.bfloat16)
    return QuantizedWeight(_array(mesh, spec.weight, tensor.shape, jnp.int8), scales)


def gpu_parameters(context: EngineContext) -> dict[str, dict[str, Any]]:
    """Returns the parameters in the layout of an engine on GPUs."""
    params = abstract_parameters(context.model, context.mesh)
    gpu_params: dict[str, dict[str, Any]] = {}
    for module, tensors in params.items():
        gpu_params[module] = {
            name: _gpu_tensor(context, name, tensor) for name, tensor in tensors.items()
        }
    return gpu_params


def _gpu_tensor(context: EngineContext, name: str, tensor: Any) -> Any:
    if isinstance(tensor, QuantizedWeight) and tensor.weight.ndim == 3:
        experts, rows, columns = tensor.weight.shape
        sharding: Any = tensor.weight.sharding
        spec = transposed_spec(sharding.spec)
        weight = _array(context.mesh, spec, (experts, columns, rows), jnp.int8)
        return TransposedExperts(weight, tensor.scales)
    if name == "embeddings":
        return _array(context.mesh, tensor.sharding.spec, tensor.shape, context.dtype)
    return tensor


def abstract_cache(context: EngineContext, pages_per_data_shard: int) -> Cache:
    """Returns the cache of all data shards, `pages_per_data_shard` pages each."""
    make = partial(
        init_cache,
        context.model,
        pages=pages_per_data_shard * context.data_shards,
        page_size=context.engine.page_size,
        dtype=context.cache_dtype,
        model_shards=1,
    )
    return jax.tree.map(
        lambda array, spec: _array(context.mesh, spec, array.shape, array.dtype),
        jax.eval_shape(make),
        cache_specs(context.model),
    )


def prefill_input(context: EngineContext, rows: int, width: int) -> Step:
    """Returns the input of a prefill of `rows` rows per data shard, with page tables of `width`."""
    ints = partial(_rows, context, rows, dtype=jnp.int32)
    return Step(tokens=ints(context.engine.chunk), start=ints(), count=ints(), pages=ints(width))


def decode_input(context: EngineContext, rows: int, width: int) -> PackedRows[DecodeInput]:
    """Returns the input of a decode of `rows` rows per data shard, with page tables of `width`."""
    ints = partial(_rows, context, rows, dtype=jnp.int32)
    call = DecodeInput(
        tokens=ints(),
        start=ints(),
        left=ints(),
        stops_at_eos=_rows(context, rows, dtype=jnp.bool_),
        pages=ints(width),
        sampling=_sampling_arrays(context, rows),
        processors=_processor_arrays(context, rows),
    )
    layout = layout_of(call)
    return PackedRows(_rows(context, rows, layout.words, dtype=jnp.uint32), layout)


def _processor_arrays(context: EngineContext, rows: int) -> Any:
    unused_rows = [None] * (rows * context.data_shards)
    arrays = context.logits_chain.host_arrays(unused_rows)
    return jax.tree.map(lambda array: _array(context.mesh, ROWS, array.shape, array.dtype), arrays)


def _sampling_arrays(context: EngineContext, rows: int) -> SamplingArrays:
    ints = partial(_rows, context, rows, dtype=jnp.int32)
    floats = partial(_rows, context, rows, dtype=jnp.float32)
    return SamplingArrays(
        temperature=floats(),
        top_p=floats(),
        top_k=ints(),
        min_p=floats(),
        seed=_rows(context, rows, 2, dtype=jnp.uint32),
        position=ints(),
        eos_from=ints(),
    )


def score_input(context: EngineContext, rows: int, targets: int) -> tuple[Any, Any, Any]:
    """Returns hidden states of a prefill of `rows` rows, and positions and ids of the targets.

    Both numbers are per data shard.
    """
    ints = partial(_rows, context, targets, dtype=jnp.int32)
    return _hidden_states(context, rows), ints(), ints()


def pool_input(context: EngineContext, rows: int) -> tuple[Any, Any]:
    """Returns hidden states of a prefill of `rows` rows per data shard, and the rows' counts."""
    return _hidden_states(context, rows), _rows(context, rows, dtype=jnp.int32)


def _hidden_states(context: EngineContext, rows: int) -> Any:
    shape = (rows * context.data_shards, context.engine.chunk, context.model.emb_size)
    return _array(context.mesh, hidden_spec(context), shape, context.dtype)


def bytes_per_device(tree: Any) -> int:
    """Returns the bytes that the arrays of a tree take on one device."""
    return sum(_local_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _local_bytes(leaf: Any) -> int:
    local = leaf.sharding.shard_shape(leaf.shape)
    return math.prod(local) * jnp.dtype(leaf.dtype).itemsize


def _rows(context: EngineContext, rows: int, *more: int, dtype: Any) -> Any:
    return _array(context.mesh, ROWS, (rows * context.data_shards, *more), dtype)


def _array(mesh: Mesh, spec: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
