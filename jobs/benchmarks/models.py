"""Models for benchmarks, with random parameters that are computed on the devices of the mesh.

No checkpoint is read. The parameters have the layout that an engine on that mesh takes, and
magnitudes with which activations neither vanish nor grow.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from actors.model.config import DEMO, GROK_1, SMALL, ModelConfig, TensorSpec, parameter_shapes


@dataclass(frozen=True)
class BenchmarkModel:
    """A model of the benchmark.

    `scale_groups` is the number of scales that a device holds of each column of a weight. None: as
    many as a checkpoint has. A trial shows that the benchmark runs: its figures mean nothing, and
    the machine's own rates are measured at small sizes, too.
    """

    config: ModelConfig
    scale_groups: int | None = None
    is_trial: bool = False

    def with_layers(self, layers: int) -> "BenchmarkModel":
        """Returns the same model with another number of layers."""
        return replace(self, config=replace(self.config, num_layers=layers))

    def tensors(self) -> list[TensorSpec]:
        """Returns the tensors of the model, with the groups of scales that a device holds."""
        tensors: list[TensorSpec] = []
        for tensor in parameter_shapes(self.config):
            if self.scale_groups is None or tensor.scale_groups is None:
                tensors.append(tensor)
            else:
                tensors.append(replace(tensor, scale_groups=self.scale_groups))
        return tensors


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
# The same structure at a size that any machine runs in a second.
TINY_SHARD = replace(DEMO, num_q_heads=2, num_kv_heads=1, vocab_size=64, num_layers=2)

# A device of eight holds one of the eight groups of scales of each weight.
MODELS: dict[str, BenchmarkModel] = {
    "small": BenchmarkModel(SMALL),
    "demo": BenchmarkModel(DEMO),
    "grok-1-shard": BenchmarkModel(GROK_1_SHARD, scale_groups=1),
    "tiny-shard": BenchmarkModel(TINY_SHARD, scale_groups=1, is_trial=True),
}


@dataclass(frozen=True)
class TensorLayout:
    """What the program that makes a tensor depends on: all layers share one program per layout."""

    shape: tuple[int, ...]
    scales_shape: tuple[int, ...] | None  # None: dense float32
    shardings: Any


def random_params(
    model: BenchmarkModel, mesh: Any, dtype: Any, *, dense: bool, platform: Any = None
) -> dict[str, dict[str, Any]]:
    """Returns random parameters on the mesh: dense in `dtype`, or int8 as the kernels read them.

    Args:
        model: hyperparameters and groups of scales.
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


def tensor_layouts(model: BenchmarkModel, mesh: Any) -> list[tuple[TensorSpec, TensorLayout]]:
    """Returns the tensors of the model, each with its layout."""
    import jax
    from jax.sharding import NamedSharding

    from actors.model.sharding import parameter_specs

    specs = parameter_specs(model.config)
    layouts: list[tuple[TensorSpec, TensorLayout]] = []
    for tensor in model.tensors():
        spec = specs[tensor.module][tensor.name]
        shardings = jax.tree.map(lambda part: NamedSharding(mesh, part), spec)
        layouts.append((tensor, TensorLayout(tensor.shape, tensor.scales_shape, shardings)))
    return layouts


def _stored(model: BenchmarkModel, mesh: Any) -> dict[str, dict[str, Any]]:
    import jax

    programs: dict[TensorLayout, Callable[[Any], Any]] = {}
    params: dict[str, dict[str, Any]] = {}
    for number, (tensor, layout) in enumerate(tensor_layouts(model, mesh)):
        if layout not in programs:
            programs[layout] = _tensor_program(layout)
        make_tensor = programs[layout]

        module_params = params.setdefault(tensor.module, {})
        module_params[tensor.name] = make_tensor(jax.random.key(number))
    return params


def _tensor_program(layout: TensorLayout) -> Callable[[Any], Any]:
    """Returns the compiled function from a random key to a tensor.

    It computes each device's part on that device.
    """
    import jax

    random_tensor = _int8
    if layout.scales_shape is None:
        random_tensor = _dense
    return jax.jit(partial(random_tensor, layout), out_shardings=layout.shardings)


def _dense(layout: TensorLayout, key: Any) -> Any:
    import jax
    import jax.numpy as jnp

    if len(layout.shape) == 1:
        return jnp.ones(layout.shape, jnp.float32)
    return jax.random.normal(key, layout.shape, jnp.float32) / layout.shape[-2] ** 0.5


def _int8(layout: TensorLayout, key: Any) -> Any:
    import jax
    import jax.numpy as jnp

    from actors.kernels.quantized import QuantizedWeight

    bits = jax.random.bits(key, layout.shape, jnp.uint8)
    weight = jax.lax.bitcast_convert_type(bits, jnp.int8)
    assert layout.scales_shape is not None  # int8
    scale = 1 / (74 * layout.shape[-2] ** 0.5)
    scales = jnp.full(layout.scales_shape, scale, jnp.bfloat16)
    return QuantizedWeight(weight, scales)
