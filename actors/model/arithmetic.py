"""What a step of the model costs at least: useful floating-point operations and bytes that must move. No JAX.

Useful operations are those of the chosen experts and of visible keys; padding, unused experts and
masked keys are not counted. A multiply-add is two operations. What programs really do is measured
against these figures (MFU, MBU).
"""

import math

from actors.model.config import ModelConfig, TensorSpec, parameter_shapes


def token_flops(config: ModelConfig, context: float) -> float:
    """Returns the operations of all layers for one token that sees `context` keys, the vocabulary projection left out."""
    chosen = config.num_selected_experts / config.num_experts
    matrices = sum(
        math.prod(tensor.shape)
        * (chosen if "experts" in tensor.axes and tensor.scale_groups is not None else 1)
        for tensor in parameter_shapes(config)
        if "vocab" not in tensor.axes and len(tensor.shape) > 1
    )
    attention = 2 * config.num_layers * config.num_q_heads * config.key_size * context
    return 2 * (matrices + attention)


def projection_flops(config: ModelConfig) -> float:
    """Returns the operations of one token's logits over the whole vocabulary."""
    return 2.0 * config.vocab_size * config.emb_size


def experts_touched(config: ModelConfig, tokens: int) -> float:
    """Returns how many experts of a layer `tokens` tokens choose in expectation, routing taken as even."""
    return config.num_experts * (
        1 - (1 - config.num_selected_experts / config.num_experts) ** tokens
    )


def step_weight_bytes(
    config: ModelConfig, tokens: int, *, dense_itemsize: int | None = None, table_itemsize: int = 4
) -> float:
    """Returns the bytes of weights that a step of `tokens` tokens reads once, vocabulary included.

    Args:
        config: the model.
        tokens: tokens of the step; few of them choose few experts.
        dense_itemsize: bytes per number of weights that were dequantised once; None: int8 with scales, as stored.
        table_itemsize: bytes per number of the embedding table.
    """
    share = experts_touched(config, tokens) / config.num_experts

    def stored(tensor: TensorSpec) -> int:
        if "vocab" in tensor.axes:
            return math.prod(tensor.shape) * table_itemsize
        if dense_itemsize is not None and tensor.scale_groups is not None:
            return math.prod(tensor.shape) * dense_itemsize
        return tensor.stored_bytes

    return sum(
        stored(tensor)
        * (share if tensor.scale_groups is not None and "experts" in tensor.axes else 1)
        for tensor in parameter_shapes(config)
    )


def cache_bytes(config: ModelConfig, itemsize: int) -> int:
    """Returns the bytes of keys and values of one token in all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.key_size * itemsize
