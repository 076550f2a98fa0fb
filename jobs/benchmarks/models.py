"""Models for benchmarks, with random parameters that are computed on the devices of the mesh.

No checkpoint is read. The parameters have the layout that an engine on that mesh takes, and
magnitudes with which activations neither vanish nor grow.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from actors.model.config import DEMO, GROK_1, SMALL, ModelConfig, TensorSpec, parameter_shapes

# The share of Grok-1 of one of eight devices on the mesh 1x8: an eighth of the heads, of each
# expert's width and of the vocabulary. It runs on one device, so measurements do not include the
# two all-reduces of a layer.
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

    Args:
        model: hyperparameters.
        mesh: devices that hold the parameters.
        dtype: of dense parameters.
        dense: no int8 weights.
        platform: the kernels' platform; None: the platform of the mesh's devices.
    """
    from actors.kernels.choice import platform_of

    if platform is None:
        platform = platform_of(mesh.devices.flat[0])
    params: dict[str, dict[str, Any]] = platform.prepare(_stored(model, mesh), dtype, dense=dense)
    return params


def _stored(model: ModelConfig, mesh: Any) -> dict[str, dict[str, Any]]:
    import jax
    from jax.sharding import NamedSharding

    from actors.model.sharding import parameter_specs

    specs = parameter_specs(model)
    params: dict[str, dict[str, Any]] = {}
    for number, tensor in enumerate(parameter_shapes(model)):
        spec = specs[tensor.module][tensor.name]
        shardings = jax.tree.map(lambda part: NamedSharding(mesh, part), spec)
        make_tensor = _tensor_factory(_on_one_device(tensor, model), shardings)

        module_params = params.setdefault(tensor.module, {})
        module_params[tensor.name] = make_tensor(jax.random.key(number))
    return params


def _on_one_device(tensor: TensorSpec, model: ModelConfig) -> TensorSpec:
    """Returns the tensor with the groups of scales that one device holds.

    A device of GROK_1_SHARD holds one of the eight groups.
    """
    if model is GROK_1_SHARD and tensor.scale_groups:
        return replace(tensor, scale_groups=1)
    return tensor


def _tensor_factory(tensor: TensorSpec, shardings: Any) -> Callable[[Any], Any]:
    """Returns the compiled function from a random key to a tensor.

    It computes each device's part on that device.
    """
    import jax

    random_tensor = _int8
    if tensor.scale_groups is None:
        random_tensor = _dense
    return jax.jit(partial(random_tensor, tensor), out_shardings=shardings)


def _dense(tensor: TensorSpec, key: Any) -> Any:
    import jax
    import jax.numpy as jnp

    if len(tensor.shape) == 1:
        return jnp.ones(tensor.shape, jnp.float32)
    return jax.random.normal(key, tensor.shape, jnp.float32) / tensor.shape[-2] ** 0.5


def _int8(tensor: TensorSpec, key: Any) -> Any:
    import jax
    import jax.numpy as jnp

    from actors.kernels.quantized import QuantizedWeight

    bits = jax.random.bits(key, tensor.shape, jnp.uint8)
    weight = jax.lax.bitcast_convert_type(bits, jnp.int8)
    assert tensor.scales_shape is not None  # int8
    scale = 1 / (74 * tensor.shape[-2] ** 0.5)
    scales = jnp.full(tensor.scales_shape, scale, jnp.bfloat16)
    return QuantizedWeight(weight, scales)
