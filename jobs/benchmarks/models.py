"""Models to measure, with random weights made where they will lie: no checkpoint is read.

Input: a model and a mesh. Output: parameters as an engine on that mesh takes them. The numbers mean
nothing; their magnitudes are such that activations neither vanish nor grow.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from actors.model.config import DEMO, GROK_1, SMALL, ModelConfig, TensorSpec, parameter_shapes

# What one of eight devices holds of Grok-1 on the mesh 1x8: an eighth of the heads, of each
# expert's width and of the vocabulary. It runs on one device, so the two all-reduces of a layer are
# not in what is measured.
GROK_1_SHARD = replace(
    GROK_1,
    vocab_size=GROK_1.vocab_size // 8,
    widening_factor=GROK_1.widening_factor // 8,
    num_q_heads=GROK_1.num_q_heads // 8,
    num_kv_heads=GROK_1.num_kv_heads // 8,
)
MODELS: dict[str, ModelConfig] = {"small": SMALL, "demo": DEMO, "grok-1-shard": GROK_1_SHARD}


def random_params(
    model: ModelConfig, mesh: Any, dtype: Any, *, dense: bool, platform: Any = None
) -> dict[str, dict[str, Any]]:
    """Returns random parameters on the mesh: dense in `dtype`, or int8 as the kernels read them.

    `platform`: whose kernels; None: the platform of the mesh's devices.
    """
    from actors.kernels.choice import select_platform

    if platform is None:
        platform = select_platform(mesh.devices.flat[0].platform)
    params: dict[str, dict[str, Any]] = platform.prepare(_stored(model, mesh), dtype, dense=dense)
    return params


def _stored(model: ModelConfig, mesh: Any) -> dict[str, dict[str, Any]]:
    import jax
    from jax.sharding import NamedSharding

    from actors.model.sharding import parameter_specs

    specs = parameter_specs(model)
    params: dict[str, dict[str, Any]] = {}
    for number, tensor in enumerate(parameter_shapes(model)):
        where = jax.tree.map(
            lambda spec: NamedSharding(mesh, spec), specs[tensor.module][tensor.name]
        )
        params.setdefault(tensor.module, {})[tensor.name] = _maker(
            _on_one_device(tensor, model), where
        )(jax.random.key(number))
    return params


def _on_one_device(tensor: TensorSpec, model: ModelConfig) -> TensorSpec:
    """Returns the tensor with as many groups of scales as one device has of it: of a shard of eight, one of eight."""
    return (
        replace(tensor, scale_groups=1) if model is GROK_1_SHARD and tensor.scale_groups else tensor
    )


def _maker(tensor: TensorSpec, where: Any) -> Callable[[Any], Any]:
    """Returns the compiled function random key -> tensor.

    It makes each device's part on that device.
    """
    import jax

    return jax.jit(
        partial(_plain if tensor.scale_groups is None else _int8, tensor), out_shardings=where
    )


def _plain(tensor: TensorSpec, key: Any) -> Any:
    import jax
    import jax.numpy as jnp

    if len(tensor.shape) == 1:
        return jnp.ones(tensor.shape, jnp.float32)
    return jax.random.normal(key, tensor.shape, jnp.float32) / tensor.shape[-2] ** 0.5


def _int8(tensor: TensorSpec, key: Any) -> Any:
    import jax
    import jax.numpy as jnp

    from actors.kernels.quantized import QuantizedWeight

    weight = jax.lax.bitcast_convert_type(jax.random.bits(key, tensor.shape, jnp.uint8), jnp.int8)
    assert tensor.scales_shape is not None  # int8
    return QuantizedWeight(
        weight, jnp.full(tensor.scales_shape, 1 / (74 * tensor.shape[-2] ** 0.5), jnp.bfloat16)
    )
