"""The runs of kernels that a check of a GPU compares and times, at sizes of Grok-1's shards."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from actors.engine.planning.device_profiles import REFERENCE_SHARD, ModelShard
from actors.engine.sampling import SamplingArrays, sample_tokens
from actors.engine.simulation.floors import kernel_work
from actors.kernels.gpu.layout import TransposedExperts
from actors.kernels.interface import Experts, Kernels, Placement, Projections
from actors.kernels.quantized import QuantizedWeight, dot

KERNELS = (
    "experts",
    "routing",
    "attention_decode",
    "attention_prefill",
    "attention_inputs",
    "page_writes",
    "attention_output",
    "norms",
    "vocabulary",
    "sampling_sorted",
)
PAGE_SIZE = 16
PREFILL_TOKENS = 8  # of one row
PROMPT_ROWS = 32  # of a prefill: rows of one prompt read the same pages
HIDDEN_SHARE = 0.1  # of the cached tokens, which attention must not see
TEMPERATURE = 0.8
TOP_P = 0.9


@dataclass(frozen=True)
class Sizes:
    """Sizes of the cases, and of the model's part on the device.

    `decode` and `prefill` are pairs: tokens of the call, and the cached tokens that one of them
    sees on average.
    """

    shard: ModelShard
    tokens: tuple[int, ...]  # of the experts and of routing
    float32_tokens: tuple[int, ...]
    product_tokens: tuple[int, ...]  # of projections, norms and vocabulary
    sampled_rows: tuple[int, ...]
    decode: tuple[tuple[int, int], ...]
    prefill: tuple[tuple[int, int], ...]


GROK_1_SHARD = Sizes(
    shard=REFERENCE_SHARD,
    tokens=(1, 8, 32, 64, 128, 256, 512, 2048, 4096, 8192),
    float32_tokens=(64, 2048),
    product_tokens=(64, 256, 2048),
    sampled_rows=(64, 256, 512),
    decode=((64, 512), (8, 512), (128, 512), (256, 512), (512, 512), (64, 4096)),
    prefill=((2048, 512), (8192, 512), (8192, 4096)),
)
TINY = Sizes(
    shard=ModelShard(
        width=64,
        ffn=48,
        q_heads=3,
        kv_heads=1,
        key_size=16,
        experts=8,
        chosen_experts=2,
        vocab=32,
        devices=2,
    ),
    tokens=(24,),
    float32_tokens=(24,),
    product_tokens=(24,),
    sampled_rows=(4,),
    decode=((3, 32),),
    prefill=((32, 40),),
)


@dataclass(frozen=True)
class Case:
    """One run of a kernel, on numbers of its own. Its first argument begins with a small array.

    `kernel` is a name of `device_profiles.KERNELS`, or `experts` for both grouped products with the
    tiles of their rows, or `page_writes` for the keys and values of `attention_inputs`.
    """

    kernel: str
    tokens: int
    dtype: str
    function: Callable[[Kernels], Callable[..., Any]]  # kernels -> function of the arguments
    arguments: tuple[Any, ...]
    min_bytes: float  # that one run must read, and of norms write
    flops: float = 0.0  # that one run must compute
    context: int = 0  # cached tokens that a token sees on average; attention only
    is_compared: bool = True  # with plain XLA; false for what XLA computes anyway

    @property
    def name(self) -> str:
        """Kernel and sizes."""
        name = f"{self.kernel}, {self.tokens} tokens"
        if self.context:
            name += f", {self.context} keys"
        return name


def cases(sizes: Sizes) -> Iterator[Case]:
    """Yields the cases."""
    weights = _experts(sizes.shard)
    for tokens in sizes.tokens:
        yield _experts_case(sizes.shard, weights, tokens, "bfloat16")
        yield _routing_case(sizes.shard, tokens)
    for tokens in sizes.float32_tokens:
        yield _experts_case(sizes.shard, weights, tokens, "float32")

    for tokens, context in sizes.decode:
        yield _attention_case("attention_decode", sizes.shard, tokens, context, "bfloat16")
    for tokens, context in sizes.prefill:
        yield _attention_case("attention_prefill", sizes.shard, tokens, context, "bfloat16")
    yield _attention_case("attention_decode", sizes.shard, *sizes.decode[0], "float32")
    yield _attention_case("attention_prefill", sizes.shard, *sizes.prefill[0], "float32")

    for tokens in sizes.product_tokens:
        yield from _product_cases(sizes.shard, tokens)
    for rows in sizes.sampled_rows:
        yield _sampling_case(sizes.shard, rows)


def _experts(shard: ModelShard) -> Experts:
    """Returns random experts in the layout of GPU kernels, which plain XLA accepts too."""
    width = shard.width
    ffn = shard.ffn
    return (
        _expert_weight(0, shard.experts, width, ffn),
        _expert_weight(1, shard.experts, width, ffn),
        _expert_weight(2, shard.experts, ffn, width),
    )


def _expert_weight(seed: int, experts: int, rows: int, columns: int) -> TransposedExperts:
    values = _int8(seed, (experts, columns, rows))
    return TransposedExperts(values, _scales(rows, (experts, 1, columns)))


def _int8(seed: int, shape: tuple[int, ...]) -> Array:
    return jax.random.randint(jax.random.key(seed), shape, -127, 128, jnp.int8)


def _scales(rows: int, shape: tuple[int, ...]) -> Array:
    """Returns scales that give sums over `rows` rows a magnitude of one."""
    return jnp.full(shape, 1 / (74 * rows**0.5), jnp.bfloat16)


def _experts_case(shard: ModelShard, weights: Experts, tokens: int, dtype: str) -> Case:
    x_ND = jax.random.normal(jax.random.key(tokens), (tokens, shard.width), dtype)
    scores_NE = jax.random.uniform(jax.random.key(7), (tokens, shard.experts))
    chosen_NX = jax.lax.top_k(scores_NE, shard.chosen_experts)[1].astype(jnp.int32)

    def function(kernels: Kernels) -> Callable[..., Any]:
        def expert_rows(chosen_NX: Array, x_ND: Array, weights: Experts) -> Array:
            rows_AD, place_NX = kernels.grouped_ffn(x_ND, chosen_NX, weights)
            return rows_AD[place_NX]

        return expert_rows

    touched_experts = len(set(chosen_NX.ravel().tolist()))
    expert_weights = 3 * shard.width * shard.ffn
    return Case(
        kernel="experts",
        tokens=tokens,
        dtype=dtype,
        function=function,
        arguments=(chosen_NX, x_ND, weights),
        min_bytes=touched_experts * expert_weights,
        flops=2 * shard.chosen_experts * tokens * expert_weights,
    )


def _routing_case(shard: ModelShard, tokens: int) -> Case:
    x_ND = jax.random.normal(jax.random.key(tokens), (tokens, shard.width), jnp.bfloat16)
    w_DE = jax.random.normal(jax.random.key(0), (shard.width, shard.experts)) / shard.width**0.5

    def function(kernels: Kernels) -> Callable[..., Any]:
        def gates(real_N: Array, x_ND: Array, w_DE: Array) -> Array:
            gates_NX, _ = kernels.route(x_ND, w_DE, real_N > 0, shard.chosen_experts)
            return gates_NX

        return gates

    return Case(
        kernel="routing",
        tokens=tokens,
        dtype="bfloat16",
        function=function,
        arguments=(jnp.ones(tokens, jnp.int32), x_ND, w_DE),
        min_bytes=2 * x_ND.size + 4 * w_DE.size,
        flops=2 * tokens * w_DE.size,
    )


def _attention_case(kernel: str, shard: ModelShard, tokens: int, context: int, dtype: str) -> Case:
    if kernel == "attention_decode":
        placement = _decode_placement(tokens, context)
    else:
        placement = _prefill_placement(tokens // PREFILL_TOKENS, context)

    pages = int(placement.pages_BJ.max()) + 1
    cache_shape = (pages, PAGE_SIZE, shard.kv_heads, shard.key_size)
    keys = jax.random.normal(jax.random.key(3), cache_shape, dtype)
    values = jax.random.normal(jax.random.key(4), cache_shape, dtype)
    query_shape = (*placement.positions_BT.shape, shard.q_heads, shard.key_size)
    queries = jax.random.normal(jax.random.key(5), query_shape, dtype)

    def function(kernels: Kernels) -> Callable[..., Any]:
        scale = shard.key_size**-0.5
        return lambda placement, q, keys, values: kernels.attend(q, keys, values, placement, scale)

    token_bytes = 2 * shard.key_size * jnp.dtype(dtype).itemsize
    return Case(
        kernel=kernel,
        tokens=tokens,
        dtype=dtype,
        function=function,
        arguments=(placement, queries, keys, values),
        # the rows of a prompt share its pages
        min_bytes=_cached_tokens(placement) * token_bytes,
        flops=4 * tokens * context * shard.q_heads * shard.key_size,
        context=context,
    )


def _cached_tokens(placement: Placement) -> float:
    """Returns the tokens of all sequences; rows with the same first page are one sequence."""
    lengths: dict[int, int] = {}
    rows = zip(placement.pages_BJ[:, 0].tolist(), placement.length_B.tolist(), strict=True)
    for first_page, length in rows:
        lengths[first_page] = max(length, lengths.get(first_page, 0))
    return float(sum(lengths.values()))


def _decode_placement(sequences: int, context: int) -> Placement:
    """Returns sequences of growing lengths, `context` on average."""
    length_B = jnp.linspace(context // 2, context + context // 2, sequences).astype(jnp.int32)
    return _placement(jnp.arange(sequences), length_B, 1)


def _prefill_placement(rows: int, context: int) -> Placement:
    """Returns prompts of PROMPT_ROWS rows, whose tokens see `context` keys on average."""
    row_B = jnp.arange(rows)
    prompt_tokens = PROMPT_ROWS * PREFILL_TOKENS
    first = max(0, context - prompt_tokens // 2)
    length_B = first + (row_B % PROMPT_ROWS + 1) * PREFILL_TOKENS
    return _placement(row_B // PROMPT_ROWS, length_B, PREFILL_TOKENS)


def _placement(sequence_B: Array, length_B: Array, new_tokens: int) -> Placement:
    """Returns rows of sequences on shuffled pages, with some tokens hidden.

    Args:
        sequence_B: the sequence of each row.
        length_B: cached tokens of each row, its new ones included.
        new_tokens: tokens of each row.
    """
    table_pages = -(-int(length_B.max()) // PAGE_SIZE)
    sequences = int(sequence_B.max()) + 1
    pages = jax.random.permutation(jax.random.key(1), sequences * table_pages)
    pages_BJ = pages.reshape(sequences, table_pages).astype(jnp.int32)[sequence_B]

    length_B = length_B.astype(jnp.int32)
    position_S = jnp.arange(table_pages * PAGE_SIZE)
    positions_BT = length_B[:, None] - new_tokens + jnp.arange(new_tokens)[None, :]
    shown_BS = jax.random.uniform(jax.random.key(2), (length_B.size, position_S.size))
    live_BS = (shown_BS > HIDDEN_SHARE) & (position_S[None, :] < length_B[:, None])
    is_past_BTS = position_S[None, None, :] <= positions_BT[:, :, None]
    visible_BTS = live_BS[:, None, :] & is_past_BTS

    not_written_BT = jnp.zeros_like(positions_BT)
    return Placement(
        positions_BT, not_written_BT, not_written_BT, pages_BJ, length_B, live_BS, visible_BTS
    )


def _product_cases(shard: ModelShard, tokens: int) -> Iterator[Case]:
    """Yields attention's projections, norms, and the vocabulary, which XLA computes everywhere."""
    yield _attention_inputs_case("attention_inputs", shard, tokens)
    yield _attention_inputs_case("page_writes", shard, tokens)
    yield _attention_output_case(shard, tokens)
    yield _norms_case(shard, tokens)

    x_ND = jax.random.normal(jax.random.key(tokens), (tokens, shard.width), jnp.bfloat16)
    table_VD = jax.random.normal(jax.random.key(0), (shard.vocab, shard.width), jnp.bfloat16)
    yield Case(
        kernel="vocabulary",
        tokens=tokens,
        dtype="bfloat16",
        function=lambda _: lambda x_ND, table_VD: dot(x_ND, table_VD.T),
        arguments=(x_ND, table_VD),
        min_bytes=2 * table_VD.size,
        flops=2 * tokens * table_VD.size,
        is_compared=False,
    )


def _attention_inputs_case(kernel: str, shard: ModelShard, tokens: int) -> Case:
    """Returns the case whose result is the queries, or for `page_writes` the pages."""
    kv_width = shard.kv_heads * shard.key_size
    columns = (shard.q_heads * shard.key_size, kv_width, kv_width)
    weights = tuple(_matrix(seed, shard.width, size) for seed, size in enumerate(columns))
    x_BTD = _small_numbers((tokens, 1, shard.width))
    pages = -(-tokens // PAGE_SIZE)
    cache = jnp.zeros((pages, PAGE_SIZE, shard.kv_heads, shard.key_size), x_BTD.dtype)

    def function(kernels: Kernels) -> Callable[..., Any]:
        def run(placement: Placement, x_BTD: Array, weights: Projections, cache: Array) -> Array:
            queries, keys, values = kernels.attention_inputs(
                x_BTD, weights, cache, cache, placement
            )
            if kernel == "page_writes":
                return jnp.stack((keys, values))
            return queries

        return run

    return Case(
        kernel=kernel,
        tokens=tokens,
        dtype="bfloat16",
        function=function,
        arguments=(_adjacent_rows(tokens), x_BTD, weights, cache),
        min_bytes=shard.width * sum(columns),
        flops=2 * tokens * shard.width * sum(columns),
    )


def _attention_output_case(shard: ModelShard, tokens: int) -> Case:
    width = shard.q_heads * shard.key_size
    weight = _matrix(0, width, shard.width)
    return Case(
        kernel="attention_output",
        tokens=tokens,
        dtype="bfloat16",
        function=lambda kernels: kernels.project,
        arguments=(_small_numbers((tokens, 1, width)), weight),
        min_bytes=width * shard.width,
        flops=2 * tokens * width * shard.width,
    )


def _norms_case(shard: ModelShard, tokens: int) -> Case:
    """Returns the two kernels of a layer that add a result to the stream and norm the sum."""
    # scales that keep all numbers at magnitudes below one
    scale_D = jnp.full(shard.width, 1 / 8, jnp.float32)
    h_BTD = _small_numbers((tokens, 1, shard.width))
    update_BTD = jnp.roll(h_BTD, 1, axis=-1)

    def function(kernels: Kernels) -> Callable[..., Any]:
        def normed(scale_D: Array, h_BTD: Array, update_BTD: Array) -> Array:
            h_BTD, x_BTD = kernels.add_and_norm(h_BTD, update_BTD, scale_D, scale_D)
            # depends on both results of the first kernel, so that their difference shows
            return kernels.add_and_norm(h_BTD, x_BTD, scale_D, scale_D)[1]

        return normed

    return Case(
        kernel="norms",
        tokens=tokens,
        dtype="bfloat16",
        function=function,
        arguments=(scale_D, h_BTD, update_BTD),
        min_bytes=kernel_work("norms", shard, tokens).memory_bytes,
    )


def _matrix(seed: int, rows: int, columns: int) -> QuantizedWeight:
    """Returns an int8 matrix with one group of scales."""
    return QuantizedWeight(_int8(seed, (rows, columns)), _scales(rows, (1, columns)))


def _small_numbers(shape: tuple[int, ...]) -> Array:
    """Returns activations whose projections have a magnitude of at most about one."""
    return jax.random.normal(jax.random.key(shape[0]), shape, jnp.bfloat16) / 4


def _adjacent_rows(tokens: int) -> Placement:
    """Returns a new token for each row of pages, in order; what only attention reads is missing."""
    token_N1 = jnp.arange(tokens, dtype=jnp.int32)[:, None]
    is_seen_N1 = jnp.zeros((tokens, 1), jnp.bool_)
    return Placement(
        positions_BT=token_N1,
        page_BT=token_N1 // PAGE_SIZE,
        offset_BT=token_N1 % PAGE_SIZE,
        pages_BJ=token_N1,
        length_B=token_N1[:, 0],
        live_BS=is_seen_N1,
        visible_BTS=is_seen_N1[:, :, None],
    )


def _sampling_case(shard: ModelShard, tokens: int) -> Case:
    """Returns the draws of one device: its share of the rows, over the whole vocabulary."""
    rows = max(1, tokens // shard.devices)
    vocab = shard.vocab * shard.devices
    logits_BV = jax.random.normal(jax.random.key(tokens), (rows, vocab), jnp.float32)
    sampling = SamplingArrays(
        temperature=jnp.full(rows, TEMPERATURE, jnp.float32),
        top_p=jnp.full(rows, TOP_P, jnp.float32),
        top_k=jnp.zeros(rows, jnp.int32),
        min_p=jnp.zeros(rows, jnp.float32),
        seed=jnp.zeros((rows, 2), jnp.uint32),
        position=jnp.arange(rows, dtype=jnp.int32),
        eos_from=jnp.zeros(rows, jnp.int32),
    )
    return Case(
        kernel="sampling_sorted",
        tokens=tokens,
        dtype="float32",
        function=lambda _: lambda sampling, logits_BV: sample_tokens(logits_BV, sampling),
        arguments=(sampling, logits_BV),
        min_bytes=4 * logits_BV.size,
        is_compared=False,
    )
