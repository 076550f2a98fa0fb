"""Compiles the kernels of a GPU for an H100 that is not there, alone and at sizes of real models.

Run by test_compiled.py.

Prints a JSON object: name of the case -> bytes of temporaries. A kernel that needs more than the
chip has ends it with an error.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from actors.engine.planning.compile_only import TARGETS, make_mesh
from actors.kernels.gpu import attention as gpu_attention
from actors.kernels.gpu import experts as gpu_experts
from actors.kernels.gpu.layout import TransposedExperts
from actors.kernels.interface import Placement

WHERE = NamedSharding(make_mesh(TARGETS["h100"], 1, 1), PartitionSpec())


def array(*shape: int, dtype: str = "int32") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=WHERE)


def experts(tokens: int, width: int, ffn: int, groups: int = 1, dtype: str = "bfloat16") -> Any:
    def weight(rows: int, columns: int, groups: int) -> TransposedExperts:
        return TransposedExperts(
            array(8, columns, rows, dtype="int8"), array(8, groups, columns, dtype="bfloat16")
        )

    weights = weight(width, ffn, 1), weight(width, ffn, 1), weight(ffn, width, groups)
    return jax.jit(gpu_experts.grouped_ffn).lower(
        array(tokens, width, dtype=dtype), array(tokens, 2), weights
    )


def attention(
    rows: int,
    new: int,
    heads: int,
    kv_heads: int,
    width: int,
    table: int,
    page: int = 16,
    dtype: str = "bfloat16",
) -> Any:
    pages = array(4096, page, kv_heads, width, dtype=dtype)
    live, visible = (
        array(rows, table * page, dtype="bool"),
        array(rows, new, table * page, dtype="bool"),
    )
    grid = array(rows, new)
    placement = Placement(grid, grid, grid, array(rows, table), array(rows), live, visible)
    run = jax.jit(gpu_attention.attend, static_argnums=4)
    return run.lower(array(rows, new, heads, width, dtype=dtype), pages, pages, placement, 0.1)


def cases() -> Iterator[tuple[str, Any]]:
    for tokens in (1, 64, 128, 2048):  # tiles of 16, 32, 64 and 128 rows
        yield (
            f"experts, {tokens} tokens, one of eight shards of Grok-1",
            experts(tokens, 6144, 4096),
        )
    yield "experts, 64 tokens, Grok-1 whole", experts(64, 6144, 32768, groups=8)
    yield (
        "experts, 256 tokens, model small, widths that no tile divides",
        experts(256, 512, 2736, groups=8),
    )
    yield "experts, 64 tokens, float32", experts(64, 6144, 4096, dtype="float32")
    yield "experts, 2048 tokens, float32", experts(2048, 6144, 4096, dtype="float32")
    yield "decode, 64 sequences, one of eight shards of Grok-1", attention(64, 1, 6, 1, 128, 512)
    yield "decode, 2 sequences, Grok-1 whole", attention(2, 1, 48, 8, 128, 512)
    yield "prefill, 256 rows of 8, one of eight shards of Grok-1", attention(256, 8, 6, 1, 128, 512)
    yield "prefill, 16 rows of 64", attention(16, 64, 6, 1, 128, 64)
    yield (
        "prefill, 32 rows of 8, float32, pages of 64",
        attention(32, 8, 8, 8, 64, 16, page=64, dtype="float32"),
    )


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    sizes = {
        name: lowered.compile().memory_analysis().temp_size_in_bytes for name, lowered in cases()
    }
    sys.stdout.write(json.dumps(sizes) + "\n")
