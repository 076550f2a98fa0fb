"""Everything the step functions take, as shapes without numbers: weights, cache and the inputs of each program's largest call.

Input: a `EngineContext` (its mesh may be of devices that only compile). Output: trees of
`jax.ShapeDtypeStruct` that know how they are split. Allocates nothing.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from actors.engine.sampling import SamplingArrays
from actors.engine.steps import ROWS, DecodeInput, EngineContext
from actors.kernels.quantized import QuantizedWeight, TransposedExperts, transposed_spec
from actors.model.config import ModelConfig, TensorSpec, parameter_shapes
from actors.model.language_model import Cache, Step, cache_specs, init_cache
from actors.model.sharding import parameter_specs, sharded_groups


def abstract_parameters(config: ModelConfig, mesh: Mesh) -> dict[str, dict[str, Any]]:
    """Returns the parameters as `checkpoint.load` places them: int8 with scales repeated as far as the mesh asks for it."""
    specs = parameter_specs(config)
    params: dict[str, dict[str, Any]] = {}
    for tensor in parameter_shapes(config):
        params.setdefault(tensor.module, {})[tensor.name] = _weight(
            tensor, mesh, specs[tensor.module][tensor.name]
        )
    return params


def _weight(tensor: TensorSpec, mesh: Mesh, spec: Any) -> Any:
    if tensor.scales_shape is None:
        return _array(mesh, spec, tensor.shape, jnp.float32)
    *stack, groups, columns = tensor.scales_shape
    if spec.scales[-2] is not None:
        groups = sharded_groups(groups, mesh.shape[spec.scales[-2]])
    scales = _array(mesh, spec.scales, (*stack, groups, columns), jnp.bfloat16)
    return QuantizedWeight(_array(mesh, spec.weight, tensor.shape, jnp.int8), scales)


def gpu_parameters(context: EngineContext) -> dict[str, dict[str, Any]]:
    """Returns the parameters as an engine on GPUs gets them: what `quantized.arrange` makes of int8 ones."""
    params = abstract_parameters(context.model, context.mesh)

    def one(name: str, value: Any) -> Any:
        if isinstance(value, QuantizedWeight) and value.weight.ndim == 3:
            experts, rows, columns = value.weight.shape
            spec: Any = value.weight.sharding
            return TransposedExperts(
                _array(
                    context.mesh, transposed_spec(spec.spec), (experts, columns, rows), jnp.int8
                ),
                value.scales,
            )
        return (
            _array(context.mesh, value.sharding.spec, value.shape, context.dtype)
            if name == "embeddings"
            else value
        )

    return {
        module: {name: one(name, value) for name, value in entries.items()}
        for module, entries in params.items()
    }


def abstract_cache(context: EngineContext, pages_per_data_shard: int) -> Cache:
    """Returns the cache of all data shards, `pages_per_data_shard` pages each."""
    pages = pages_per_data_shard * context.data_shards
    size = context.engine.page_size
    make = partial(
        init_cache,
        context.model,
        pages=pages,
        page_size=size,
        dtype=context.cache_dtype,
        model_shards=1,
    )
    return jax.tree.map(
        lambda a, spec: _array(context.mesh, spec, a.shape, a.dtype),
        jax.eval_shape(make),
        cache_specs(context.model),
    )


def prefill_input(context: EngineContext, rows: int, width: int) -> Step:
    """Returns the input of a prefill of `rows` rows on each data shard, with page tables of `width` entries."""
    ints = partial(_rows, context, rows, dtype=jnp.int32)
    return Step(tokens=ints(context.engine.chunk), start=ints(), count=ints(), pages=ints(width))


def decode_input(context: EngineContext, rows: int, width: int) -> DecodeInput:
    """Returns the input of a decode of `rows` sequences on each data shard, with page tables of `width` entries."""
    ints, floats = (
        partial(_rows, context, rows, dtype=jnp.int32),
        partial(_rows, context, rows, dtype=jnp.float32),
    )
    sampling = SamplingArrays(
        temperature=floats(), top_p=floats(), top_k=ints(), min_p=floats(), seed=_rows(context, rows, 2, dtype=jnp.uint32),
        position=ints(), eos_from=ints(), repetition_penalty=floats() if context.engine.repetition_penalty else None,
    )  # fmt: skip
    stops = _rows(context, rows, dtype=jnp.bool_)
    return DecodeInput(
        tokens=ints(),
        start=ints(),
        left=ints(),
        stops_at_eos=stops,
        pages=ints(width),
        sampling=sampling,
    )


def score_input(context: EngineContext, rows: int, targets: int) -> tuple[Any, Any, Any]:
    """Returns hidden states of a prefill of `rows` rows on each data shard, and positions and ids of `targets` targets on each."""
    hidden = _rows(context, rows, context.engine.chunk, context.model.emb_size, dtype=context.dtype)
    ints = partial(_rows, context, targets, dtype=jnp.int32)
    return hidden, ints(), ints()


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
