"""The least work of each kernel: bytes of memory, operations, and bytes over the links.

Weights are int8, activations and the KV cache bfloat16. A multiply-add is two operations. These
are the figures that times are scaled by, from one size, model or device to another.
"""

from dataclasses import dataclass

from actors.engine.planning.device_profiles import DeviceProfile, ModelShard
from actors.model.config import ModelConfig

Number = int | float

ACTIVATION_BYTES = 2
FLOAT32_BYTES = 4
NORM_BYTES = 16  # read and written per number, by the four norms of a layer


@dataclass(frozen=True, slots=True)
class Work:
    """What one run of a kernel must do on one device."""

    memory_bytes: Number = 0.0
    flops: Number = 0.0
    link_bytes: Number = 0.0
    host_tokens: Number = 0.0

    def memory_s(self, profile: DeviceProfile) -> float:
        """Returns the seconds to move its bytes at the peak rate."""
        return self.memory_bytes / profile.memory_bytes_per_s

    def compute_s(self, profile: DeviceProfile) -> float:
        """Returns the seconds of its products at the peak rate."""
        return self.flops / profile.flops_per_s

    def floor_s(self, profile: DeviceProfile) -> float:
        """Returns the least time in seconds; of host work, a number proportional to its time."""
        link_s = self.link_bytes / profile.link_bytes_per_s
        host_s = self.host_tokens * 1e-6
        return max(self.memory_s(profile), self.compute_s(profile), link_s, host_s)


def model_shard(model: ModelConfig, devices: int) -> ModelShard:
    """Returns the sizes of a model's part on one of `devices` along the mesh's model axis."""
    return ModelShard(
        width=model.emb_size,
        ffn=model.ffn_size // devices,
        q_heads=model.num_q_heads // devices,
        kv_heads=model.num_kv_heads // devices,
        key_size=model.key_size,
        experts=model.num_experts,
        chosen_experts=model.num_selected_experts,
        vocab=model.vocab_size // devices,
        devices=devices,
    )


def touched_experts(shard: ModelShard, tokens: Number) -> float:
    """Returns how many experts `tokens` tokens choose in expectation, evenly routed."""
    return shard.experts * (1 - (1 - shard.chosen_experts / shard.experts) ** tokens)


def kernel_work(kernel: str, shard: ModelShard, tokens: Number, context: Number = 0.0) -> Work:
    """Returns the least work of one run of a kernel of `device_profiles.KERNELS`.

    Args:
        kernel: its name.
        shard: sizes of the model's part on the device.
        tokens: rows that reach the kernel.
        context: keys that a token sees on average; for the two attention kernels.
    """
    if kernel in {"experts_gate_value", "experts_out"}:
        matrices = 2 if kernel == "experts_gate_value" else 1
        return _experts(shard, tokens, matrices)
    if kernel in {"attention_decode", "attention_prefill"}:
        return _attention(kernel, shard, tokens, context)
    if kernel in {"host_decode", "host_prefill"}:
        # shorter calls take as long
        return Work(host_tokens=max(tokens, 64))
    if kernel == "all_reduce":
        sent_share = 2 * (shard.devices - 1) / shard.devices
        return Work(link_bytes=tokens * shard.width * ACTIVATION_BYTES * sent_share)
    if kernel == "vocabulary":
        return _product(tokens, shard.width, shard.vocab, weight_bytes=ACTIVATION_BYTES)
    if kernel == "attention_inputs":
        heads = shard.q_heads + 2 * shard.kv_heads
        return _product(tokens, shard.width, heads * shard.key_size)
    if kernel == "attention_output":
        return _product(tokens, shard.q_heads * shard.key_size, shard.width)
    return Work(memory_bytes=_moved_bytes(kernel, shard, tokens))


def _experts(shard: ModelShard, tokens: Number, matrices: int) -> Work:
    weights = matrices * shard.width * shard.ffn
    assignments = tokens * shard.chosen_experts
    activations = assignments * shard.ffn + tokens * shard.width
    return Work(
        memory_bytes=touched_experts(shard, tokens) * weights + activations * ACTIVATION_BYTES,
        flops=2 * assignments * weights,
    )


def _attention(kernel: str, shard: ModelShard, tokens: Number, context: Number) -> Work:
    pairs = tokens * context
    flops = 4 * pairs * shard.q_heads * shard.key_size
    if kernel == "attention_prefill":
        # tokens of a prompt share the reads of their keys
        return Work(flops=flops)
    key_bytes = 2 * shard.kv_heads * shard.key_size * ACTIVATION_BYTES
    return Work(memory_bytes=pairs * key_bytes, flops=flops)


def _product(tokens: Number, rows: int, columns: int, weight_bytes: int = 1) -> Work:
    activations = tokens * (rows + columns)
    return Work(
        memory_bytes=rows * columns * weight_bytes + activations * ACTIVATION_BYTES,
        flops=2 * tokens * rows * columns,
    )


def _moved_bytes(kernel: str, shard: ModelShard, tokens: Number) -> Number:
    """Returns the bytes of a kernel that only moves numbers."""
    row_bytes = shard.width * ACTIVATION_BYTES
    if kernel == "norms":
        return tokens * shard.width * NORM_BYTES
    if kernel == "routing":
        return shard.width * shard.experts * FLOAT32_BYTES + tokens * row_bytes
    if kernel == "combine":
        return tokens * (shard.chosen_experts + 1) * row_bytes
    if kernel == "sampling_greedy":
        return 2 * tokens * shard.vocab * FLOAT32_BYTES
    if kernel == "sampling_sorted":
        return 2 * tokens * shard.vocab * shard.devices * FLOAT32_BYTES
    raise ValueError(f"kernel {kernel} has no floor")
