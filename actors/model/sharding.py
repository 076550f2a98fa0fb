"""Meshes ("1x8" = DATAxMODEL), and the partition specs of a model's parameters.

Specs follow from the names of a parameter's dimensions. Attention is split by key/value head,
experts by their width, the vocabulary by rows.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, PartitionSpec

from actors.kernels.quantized import QuantizedWeight
from actors.kernels.xla.layout import DenseExperts
from actors.model.config import ModelConfig, TensorSpec, parameter_shapes
from actors.protocol.errors import ModelError
from actors.protocol.plain_text import quoted

AXES = ("data", "model")

# dimension of a parameter -> mesh axis it is split over
RULES: dict[str, str | None] = {
    "vocab": "model",
    "heads": "model",
    "kv_heads": "model",
    "ffn": "model",
    "embed": None,
    "experts": None,
}

Spec = PartitionSpec | QuantizedWeight | DenseExperts
ParameterSpecs = dict[str, dict[str, Spec]]


def parse_mesh(text: str) -> tuple[int, int]:
    """Returns (data, model) of "DATAxMODEL", e.g. (1, 8) of "1x8".

    Raises:
        ModelError: the text is not two positive numbers joined by an x.
    """
    match = re.fullmatch(r"([1-9][0-9]*)x([1-9][0-9]*)", text)
    if match is None:
        raise ModelError(
            f"mesh {quoted(text)}: expected DATAxMODEL with two positive numbers, e.g. 1x8"
        )
    return int(match[1]), int(match[2])


def make_mesh(data: int, model: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh ("data", "model") of data x model devices.

    The first of `devices`; by default of all that JAX sees.

    Raises:
        ModelError: there are fewer devices than the mesh needs.
    """
    available = list(jax.devices() if devices is None else devices)
    if min(data, model) < 1 or len(available) < data * model:
        raise ModelError(
            f"mesh {data}x{model} needs {data * model} devices, JAX sees {len(available)} "
            f"({available[0].device_kind}); choose "
            "another mesh, or on a CPU set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={data * model} before JAX starts"
        )
    return jax.make_mesh(
        (data, model),
        AXES,
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=available[: data * model],
    )


def check_divisible(config: ModelConfig, model_shards: int) -> None:
    """Checks that heads, expert width and vocabulary split evenly over `model_shards` devices.

    Raises:
        ModelError: one of them cannot; the message names the numbers and what would fit.
    """
    sizes = {
        "num_kv_heads": config.num_kv_heads,
        "ffn_size": config.ffn_size,
        "vocab_size": config.vocab_size,
    }
    misfits = [f"{name} {size}" for name, size in sizes.items() if size % model_shards]
    if misfits:
        common = math.gcd(*sizes.values())
        fits = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
        raise ModelError(
            f"mesh axis model = {model_shards} does not divide the model's "
            f"{' and '.join(misfits)}; it may be one of {fits}"
        )


def sharded_groups(groups: int, model_shards: int) -> int:
    """Returns the scale groups of a weight whose rows are split over `model_shards` devices.

    That is `groups` where every device gets complete groups; otherwise each group is cut into equal
    parts with the same scales, as few as make the split even. Rows that groups and devices both
    divide are divided by this number too.
    """
    return math.lcm(groups, model_shards)


def parameter_specs(config: ModelConfig, *, dense: bool = False) -> ParameterSpecs:
    """Returns a PartitionSpec for every array of the parameters, in the parameters' own structure.

    Args:
        config: the model.
        dense: for parameters that went through `dequantize_params`; otherwise for int8 parameters.
    """
    specs: ParameterSpecs = {}
    for tensor in parameter_shapes(config):
        specs.setdefault(tensor.module, {})[tensor.name] = _spec(tensor, dense)
    return specs


def _spec(tensor: TensorSpec, dense: bool) -> Spec:
    split = [RULES[axis] for axis in tensor.axes]
    loaded: Any = PartitionSpec(*split)
    transposed: Any = PartitionSpec(*split[:-3:-1])
    if tensor.scale_groups is not None and not dense:
        # scales have groups where the weight has rows: split together or not at all
        return QuantizedWeight(loaded, loaded)
    if tensor.scale_groups is not None and "experts" in tensor.axes:
        return DenseExperts((transposed,) * tensor.shape[0])
    spec: PartitionSpec = loaded
    return spec
