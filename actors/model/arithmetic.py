"""The least cost of a step: useful floating-point operations and bytes that must move.

Useful operations are those of the chosen experts and of visible keys; padding, unused experts and
masked keys are not counted. A multiply-add is two operations. MFU and MBU are relative to these
figures.
"""

import math

from actors.model.config import ModelConfig, TensorSpec, parameter_shapes

SHARDED_AXES = {"vocab", "heads", "kv_heads", "ffn"}  # split over the mesh's model axis


def token_flops(config: ModelConfig, context: float) -> float:
    """Returns the operations of all layers for one token that sees `context` keys.

    Without the projection to the vocabulary, see `projection_flops`.
    """
    chosen_share = config.num_selected_experts / config.num_experts
    matrices = 0.0
    for tensor in parameter_shapes(config):
        if "vocab" in tensor.axes or len(tensor.shape) == 1:
            continue
        numbers = float(math.prod(tensor.shape))
        if _is_expert_weight(tensor):
            numbers *= chosen_share
        matrices += numbers
    attention = 2 * config.num_layers * config.num_q_heads * config.key_size * context
    return 2 * (matrices + attention)


def projection_flops(config: ModelConfig) -> float:
    """Returns the operations of one token's logits over the whole vocabulary."""
    return 2.0 * config.vocab_size * config.emb_size


def experts_touched(config: ModelConfig, tokens: int) -> float:
    """Returns how many experts of a layer `tokens` tokens choose in expectation, evenly routed."""
    chosen_share = config.num_selected_experts / config.num_experts
    return config.num_experts * (1 - (1 - chosen_share) ** tokens)


def step_weight_bytes(
    config: ModelConfig, tokens: int, *, dense_itemsize: int | None = None, table_itemsize: int = 4
) -> float:
    """Returns the bytes of weights that a step of `tokens` tokens reads once, vocabulary included.

    Args:
        config: the model.
        tokens: tokens of the step; few of them choose few experts.
        dense_itemsize: bytes per number of weights that were dequantized once; None: int8 with
            scales, as stored.
        table_itemsize: bytes per number of the embedding table.
    """
    touched_share = experts_touched(config, tokens) / config.num_experts
    total = 0.0
    for tensor in parameter_shapes(config):
        size = float(tensor.stored_bytes)
        if "vocab" in tensor.axes:
            size = math.prod(tensor.shape) * table_itemsize
        elif dense_itemsize is not None and tensor.scale_groups is not None:
            size = math.prod(tensor.shape) * dense_itemsize
        if _is_expert_weight(tensor):
            size *= touched_share
        total += size
    return total


def _is_expert_weight(tensor: TensorSpec) -> bool:
    """Returns whether a tensor holds the weights of experts, and is not the router."""
    return "experts" in tensor.axes and tensor.scale_groups is not None


def cache_bytes(config: ModelConfig, itemsize: int) -> int:
    """Returns the bytes of keys and values of one token in all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.key_size * itemsize


def device_weight_bytes(config: ModelConfig, model_shards: int) -> int:
    """Returns the bytes of weights on one device, as stored: int8 with scales."""
    total = 0
    for tensor in parameter_shapes(config):
        tensor_shards = 1
        if SHARDED_AXES & set(tensor.axes):
            tensor_shards = model_shards
        total += math.ceil(tensor.stored_bytes / tensor_shards)
    return total
