"""Random weights of any model shape, for demonstrations, tests and speed measurements.

Magnitudes are chosen so that logits spread by about two: neither flat nor saturated.
"""

import math
from collections.abc import Iterator

import numpy as np

from actors.model.config import ModelConfig, TensorSpec, parameter_shapes
from actors.weights.pickle_reader import BFLOAT16, HostTensor, Int8Tensor

_ROUTER_SPREAD = 2.5  # standard deviation of router logits
_ATTENTION_SPREAD = 2.2  # … of attention logits
_LOGIT_SPREAD = 2.0  # … of the model's logits
_PAD_ROW_SCALE = 0.1  # token 0 is never the likeliest one


def random_parameters(config: ModelConfig, seed: int) -> Iterator[tuple[str, HostTensor]]:
    """Yields (path, tensor) of every parameter in file order; the same seed gives the same numbers.

    A tensor is drawn when it is requested, so that a checkpoint larger than memory can be written.
    """
    for number, tensor in enumerate(parameter_shapes(config)):
        rng = np.random.default_rng((seed, number))
        if tensor.name == "scale":
            yield tensor.path, _norm_scale(config, tensor, rng)
            continue
        spread = np.float32(_spread(config, tensor))
        values = rng.standard_normal(tensor.shape, dtype=np.float32) * spread
        if tensor.name == "embeddings":
            values[0] *= _PAD_ROW_SCALE
        if tensor.scale_groups is None:
            yield tensor.path, values
        else:
            yield tensor.path, quantize(values, tensor.scale_groups)


def quantize(array: np.ndarray, groups: int) -> Int8Tensor:
    """Returns float `array` [..., K, N] as int8, symmetric.

    One bfloat16 scale per column and group of K / groups rows.

    Raises:
        ValueError: `groups` does not divide K.
    """
    *stack, rows, columns = array.shape
    if groups < 1 or rows % groups:
        raise ValueError(f"{rows} rows cannot be cut into {groups} equal groups of scales")
    grouped = array.reshape(*stack, groups, rows // groups, columns)
    largest = np.abs(grouped).max(axis=-2)
    scales = (np.where(largest > 0, largest, 1) / 127).astype(BFLOAT16)
    steps = np.rint(grouped / scales.astype(np.float32)[..., None, :])
    return Int8Tensor(np.clip(steps, -127, 127).astype(np.int8).reshape(array.shape), scales)


def _spread(config: ModelConfig, tensor: TensorSpec) -> float:
    if tensor.name == "embeddings":
        return 1 / config.embedding_multiplier_scale
    gain = 1.0
    if tensor.module.endswith("/router"):
        gain = _ROUTER_SPREAD
    elif tensor.module.endswith(("/query", "/key")):
        gain = math.sqrt(
            _ATTENTION_SPREAD / (math.sqrt(config.key_size) * config.attn_output_multiplier)
        )
    return gain / math.sqrt(tensor.shape[-2])


def _norm_scale(config: ModelConfig, tensor: TensorSpec, rng: np.random.Generator) -> np.ndarray:
    level = 1.0
    if tensor.module == "language_model/rms_norm":
        row_norm = math.sqrt(config.emb_size) / config.embedding_multiplier_scale
        level = _LOGIT_SPREAD / (row_norm * config.output_multiplier_scale)
    elif tensor.module.endswith(("rms_norm_1", "rms_norm_3")):
        level = 2.5 / math.sqrt(max(1.0, config.num_layers / 2))
    return (level * (1 + 0.2 * rng.standard_normal(tensor.shape))).astype(np.float32)
