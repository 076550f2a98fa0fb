"""Compares the kernels of a GPU with plain XLA, on the same numbers, and times them.

Experts and attention run at the sizes of one of eight shards of Grok-1.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from actors.kernels.gpu.layout import TransposedExperts
from actors.kernels.interface import Experts, Kernels, Placement
from actors.kernels.xla.platform import XLA

REPEATS = 20
EXPERTS = 8
CHOSEN_EXPERTS = 2
PAGE_SIZE = 16
HIDDEN_SHARE = 0.1  # of the cached tokens, which attention must not see
# bfloat16: two roundings of numbers of magnitude one. float32: sums of up to six thousand terms in
# another order.
TOLERANCES = {"bfloat16": 0.03, "float32": 3e-4}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the model's shard and of the cases."""

    width: int
    ffn: int
    heads: int
    key_size: int
    tokens: tuple[int, ...]  # of the experts' cases
    context: int  # cached tokens of each sequence
    sequences: int


GROK_1_SHARD = Sizes(
    width=6144,
    ffn=4096,
    heads=6,
    key_size=128,
    tokens=(1, 64, 256, 2048),
    context=4096,
    sequences=64,
)
TINY = Sizes(width=64, ffn=48, heads=3, key_size=16, tokens=(1, 24), context=64, sequences=3)


@dataclass(frozen=True)
class Case:
    """One comparison."""

    name: str
    function: Callable[[Kernels], Callable[..., Any]]  # kernels to a function of the arguments
    arguments: tuple[Any, ...]
    dtype: str
    min_bytes: float  # that one call must read


@dataclass(frozen=True)
class Comparison:
    """The result of a case."""

    case: Case
    difference: float  # largest, absolute
    seconds: float | None  # of one call; None where nothing is timed
    xla_seconds: float | None

    @property
    def is_right(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.difference <= TOLERANCES[self.case.dtype]

    def line(self) -> str:
        """Returns the result as a line of text."""
        tolerance = TOLERANCES[self.case.dtype]
        line = f"{self.case.name:<34} {self.case.dtype:<9} differs by "
        line += f"{self.difference:.1e} of {tolerance:.0e}"
        if self.seconds is not None and self.xla_seconds is not None:
            gb_per_s = self.case.min_bytes / self.seconds / 1e9
            line += f"   {self.seconds * 1e6:9,.0f} us, {gb_per_s:7,.0f} GB/s"
            line += f"   plain XLA {self.xla_seconds * 1e6:9,.0f} us"
        if not self.is_right:
            line += "   WRONG"
        return line


def compare(sizes: Sizes, kernels: Kernels, *, timed: bool) -> Iterator[Comparison]:
    """Yields the comparison of every case."""
    for case in cases(sizes):
        run_kernels = partial(jax.jit(case.function(kernels)), *case.arguments)
        run_xla = partial(jax.jit(case.function(XLA.kernels)), *case.arguments)
        difference = jnp.abs(run_kernels().astype(jnp.float32) - run_xla().astype(jnp.float32))
        seconds = None
        xla_seconds = None
        if timed:
            seconds = _call_seconds(run_kernels)
            xla_seconds = _call_seconds(run_xla)
        yield Comparison(case, float(jnp.max(difference)), seconds, xla_seconds)


def cases(sizes: Sizes) -> Iterator[Case]:
    """Yields the cases, each with numbers of its own."""
    for dtype in TOLERANCES:
        weights = _experts(sizes)
        for tokens in sizes.tokens:
            yield _experts_case(sizes, weights, tokens, dtype)
        yield _attention_case("decode", sizes, sizes.sequences, 1, dtype)
        prefill_sequences = max(1, sizes.sequences // 4)
        yield _attention_case("prefill", sizes, prefill_sequences, PAGE_SIZE, dtype)


def _call_seconds(call: Callable[[], Any]) -> float:
    """Returns the seconds of one call, of many that are queued at once."""
    jax.block_until_ready(call())
    started_s = time.perf_counter()
    jax.block_until_ready([call() for _ in range(REPEATS)])
    return (time.perf_counter() - started_s) / REPEATS


def _experts(sizes: Sizes) -> Experts:
    """Returns random experts in the layout of GPU kernels, which plain XLA accepts too."""
    width = sizes.width
    ffn = sizes.ffn
    return (
        _expert_weight(0, width, ffn),
        _expert_weight(1, width, ffn),
        _expert_weight(2, ffn, width),
    )


def _expert_weight(seed: int, rows: int, columns: int) -> TransposedExperts:
    shape = (EXPERTS, columns, rows)
    values = jax.random.randint(jax.random.key(seed), shape, -127, 128, jnp.int8)
    scale = 1 / (74 * rows**0.5)  # gives outputs of magnitude one
    scales = jnp.full((EXPERTS, 1, columns), scale, jnp.bfloat16)
    return TransposedExperts(values, scales)


def _experts_case(sizes: Sizes, weights: Experts, tokens: int, dtype: str) -> Case:
    x_ND = jax.random.normal(jax.random.key(tokens), (tokens, sizes.width), dtype)
    scores_NE = jax.random.uniform(jax.random.key(7), (tokens, EXPERTS))
    chosen_NX = jax.lax.top_k(scores_NE, CHOSEN_EXPERTS)[1].astype(jnp.int32)

    def function(kernels: Kernels) -> Callable[..., Any]:
        def expert_rows(x_ND: Any, chosen_NX: Any, weights: Experts) -> Any:
            rows_AD, place_NX = kernels.grouped_ffn(x_ND, chosen_NX, weights)
            return rows_AD[place_NX]

        return expert_rows

    touched_experts = len(set(chosen_NX.ravel().tolist()))
    min_bytes = touched_experts * 3 * sizes.width * sizes.ffn
    name = f"experts, {tokens} tokens"
    return Case(name, function, (x_ND, chosen_NX, weights), dtype, min_bytes)


def _attention_case(phase: str, sizes: Sizes, sequences: int, new_tokens: int, dtype: str) -> Case:
    """Returns a case of attention; `phase` is `decode` or `prefill`."""
    table_pages = -(-sizes.context // PAGE_SIZE)
    pages = sequences * table_pages
    placement = _placement(sizes, sequences, new_tokens, table_pages)

    cache_shape = (pages, PAGE_SIZE, 1, sizes.key_size)
    keys = jax.random.normal(jax.random.key(3), cache_shape, dtype)
    values = jax.random.normal(jax.random.key(4), cache_shape, dtype)
    query_shape = (sequences, new_tokens, sizes.heads, sizes.key_size)
    queries = jax.random.normal(jax.random.key(5), query_shape, dtype)

    def function(kernels: Kernels) -> Callable[..., Any]:
        scale = sizes.key_size**-0.5
        return lambda q, keys, values, placement: kernels.attend(q, keys, values, placement, scale)

    token_bytes = 2 * sizes.key_size * jnp.dtype(dtype).itemsize
    min_bytes = float(placement.length_B.sum()) * token_bytes
    name = f"{phase}, {sequences} sequences, {new_tokens} new"
    return Case(name, function, (queries, keys, values, placement), dtype, min_bytes)


def _placement(sizes: Sizes, sequences: int, new_tokens: int, table_pages: int) -> Placement:
    """Returns sequences of growing lengths on shuffled pages, with some tokens hidden."""
    pages = jax.random.permutation(jax.random.key(1), sequences * table_pages)
    pages_BJ = pages.reshape(sequences, table_pages).astype(jnp.int32)
    length_B = jnp.linspace(new_tokens, sizes.context, sequences).astype(jnp.int32)

    position_S = jnp.arange(table_pages * PAGE_SIZE)
    positions_BT = length_B[:, None] - new_tokens + jnp.arange(new_tokens)[None, :]
    shown_BS = jax.random.uniform(jax.random.key(2), (sequences, position_S.size)) > HIDDEN_SHARE
    live_BS = shown_BS & (position_S[None, :] < length_B[:, None])
    is_past_BTS = position_S[None, None, :] <= positions_BT[:, :, None]
    visible_BTS = live_BS[:, None, :] & is_past_BTS

    not_written_BT = jnp.zeros_like(positions_BT)
    return Placement(
        positions_BT, not_written_BT, not_written_BT, pages_BJ, length_B, live_BS, visible_BTS
    )
