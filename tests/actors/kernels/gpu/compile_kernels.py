"""Compiles the kernels of a GPU for GPUs that are not there, alone and at sizes of real models.

Run by test_compiled.py.

Prints a JSON object: name of the case -> bytes of temporaries, and registers, spilled bytes and
shared memory of each kernel. A kernel that needs more than the chip has ends it with an error.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from actors.engine.planning.compile_only import TARGETS, make_mesh
from actors.kernels.gpu import attention as gpu_attention
from actors.kernels.gpu import experts as gpu_experts
from actors.kernels.gpu import norms as gpu_norms
from actors.kernels.gpu import projections as gpu_projections
from actors.kernels.gpu import routing as gpu_routing
from actors.kernels.gpu.layout import TransposedExperts
from actors.kernels.interface import Placement
from actors.kernels.quantized import QuantizedWeight

DEVICES = {
    name: NamedSharding(make_mesh(target, 1, 1), PartitionSpec())
    for name, target in TARGETS.items()
}
NVCC = distribution("nvidia-cuda-nvcc-cu12")
PTXAS = NVCC.locate_file("nvidia/cuda_nvcc/bin/ptxas")
PTXAS_REPORT = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
    r".*?Used (\d+) registers",
    re.DOTALL,
)
LAUNCH = re.compile(r"(\w+) grid: .*? shared_memory: (\d+) bytes")


def array(*shape: int, dtype: str = "int32", gpu: str = "h100") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=DEVICES[gpu])


def experts(
    tokens: int,
    width: int,
    ffn: int,
    groups: int = 1,
    dtype: str = "bfloat16",
    gpu: str = "h100",
) -> Any:
    array_of = partial(array, gpu=gpu)

    def weight(rows: int, columns: int, groups: int) -> TransposedExperts:
        return TransposedExperts(
            array_of(8, columns, rows, dtype="int8"), array_of(8, groups, columns, dtype="bfloat16")
        )

    weights = weight(width, ffn, 1), weight(width, ffn, 1), weight(ffn, width, groups)
    return jax.jit(gpu_experts.grouped_ffn).lower(
        array_of(tokens, width, dtype=dtype), array_of(tokens, 2), weights
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
    gpu: str = "h100",
) -> Any:
    array_of = partial(array, gpu=gpu)
    pages = array_of(4096, page, kv_heads, width, dtype=dtype)
    live, visible = (
        array_of(rows, table * page, dtype="bool"),
        array_of(rows, new, table * page, dtype="bool"),
    )
    grid = array_of(rows, new)
    placement = Placement(grid, grid, grid, array_of(rows, table), array_of(rows), live, visible)
    run = jax.jit(gpu_attention.attend, static_argnums=4)
    return run.lower(array_of(rows, new, heads, width, dtype=dtype), pages, pages, placement, 0.1)


def matrix(rows: int, columns: int, groups: int, gpu: str) -> QuantizedWeight:
    weight = array(rows, columns, dtype="int8", gpu=gpu)
    return QuantizedWeight(weight, array(groups, columns, dtype="bfloat16", gpu=gpu))


def attention_inputs(
    tokens: int, new: int = 1, groups: int = 1, dtype: str = "bfloat16", gpu: str = "h100"
) -> Any:
    array_of = partial(array, gpu=gpu)
    rows = tokens // new
    x = array_of(rows, new, 6144, dtype=dtype)
    weights = tuple(matrix(6144, columns, groups, gpu) for columns in (768, 128, 128))
    pages = array_of(4096, 16, 1, 128, dtype=dtype)
    grid = array_of(rows, new)
    live, visible = array_of(rows, 8192, dtype="bool"), array_of(rows, new, 8192, dtype="bool")
    placement = Placement(grid, grid, grid, array_of(rows, 512), array_of(rows), live, visible)
    run = jax.jit(gpu_projections.attention_inputs, donate_argnums=(2, 3))
    return run.lower(x, weights, pages, pages, placement)


def attention_output(tokens: int, dtype: str = "bfloat16", gpu: str = "h100") -> Any:
    x = array(tokens, 1, 768, dtype=dtype, gpu=gpu)
    return jax.jit(gpu_projections.project).lower(x, matrix(768, 6144, 1, gpu))


def router(tokens: int, width: int = 6144) -> Any:
    run = jax.jit(gpu_routing.route, static_argnums=3)
    x = array(tokens, width, dtype="bfloat16")
    return run.lower(x, array(width, 8, dtype="float32"), array(tokens, dtype="bool"), 2)


def norms(tokens: int, dtype: str = "bfloat16", gpu: str = "h100") -> Any:
    x = array(tokens, 1, 6144, dtype=dtype, gpu=gpu)
    scale = array(6144, dtype="float32", gpu=gpu)
    return jax.jit(gpu_norms.add_and_norm).lower(x, x, scale, scale)


def cases() -> Iterator[tuple[str, Any]]:
    for tokens in (8, 64, 256, 512, 2048, 8192):  # tiles of 16, 32, 64, 64, 128 and 128 rows
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
    yield "decode, 64 sequences, float32", attention(64, 1, 6, 1, 128, 512, dtype="float32")
    yield "prefill, 256 rows of 8, float32", attention(256, 8, 6, 1, 128, 512, dtype="float32")
    for tokens in (64, 256, 8192):  # 1, 2 and 8 rows
        yield f"router, {tokens} tokens", router(tokens)
    for sequences in (64, 256, 512):
        name = f"decode, {sequences} sequences, one of eight shards of Grok-1"
        yield name, attention(sequences, 1, 6, 1, 128, 512)
    yield "decode, 2 sequences, Grok-1 whole", attention(2, 1, 48, 8, 128, 512)
    for rows in (256, 1024):
        name = f"prefill, {rows} rows of 8, one of eight shards of Grok-1"
        yield name, attention(rows, 8, 6, 1, 128, 512)
    yield "prefill, 16 rows of 64", attention(16, 64, 6, 1, 128, 64)
    yield (
        "prefill, 32 rows of 8, float32, pages of 64",
        attention(32, 8, 8, 8, 64, 16, page=64, dtype="float32"),
    )
    for tokens in (64, 512, 8192):
        new = 1 if tokens <= 512 else 8
        yield f"attention inputs, {tokens} tokens", attention_inputs(tokens, new)
        yield f"attention output, {tokens} tokens", attention_output(tokens)
    yield "attention inputs, 64 tokens, 8 groups", attention_inputs(64, groups=8)
    yield "attention inputs, 64 tokens, float32", attention_inputs(64, dtype="float32")
    yield "norms, 64 tokens", norms(64)
    yield "norms, 64 tokens, float32", norms(64, dtype="float32")
    for gpu in ("a100-80", "b200"):
        yield f"norms, 64 tokens, {gpu}", norms(64, gpu=gpu)
        yield f"attention inputs, 64 tokens, {gpu}", attention_inputs(64, gpu=gpu)
        for tokens in (64, 2048):
            yield f"experts, {tokens} tokens, {gpu}", experts(tokens, 6144, 4096, gpu=gpu)
        yield f"decode, 64 sequences, {gpu}", attention(64, 1, 6, 1, 128, 512, gpu=gpu)


def compile_case(lowered: Any) -> dict[str, Any]:
    """Returns the figures of a program and of its kernels, each of which is compiled by ptxas."""
    kernels: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        compiled = lowered.compile(compiler_options={"xla_dump_to": folder})
        for path in Path(folder).glob("*.ptx"):
            if path.stat().st_size == 0:
                continue
            for report in PTXAS_REPORT.finditer(ptxas_report(path)):
                name, stored, loaded, registers = report.groups()
                spilled = int(stored) + int(loaded)
                kernels[name] = {"registers": int(registers), "spilled_bytes": spilled}
        for path in Path(folder).glob("*.thunk_sequence.txt"):
            for launch in LAUNCH.finditer(path.read_text()):
                kernels[launch[1]]["shared_bytes"] = int(launch[2])
    temporary_bytes = compiled.memory_analysis().temp_size_in_bytes
    return {"temporary_bytes": temporary_bytes, "kernels": kernels}


def ptxas_report(path: Path) -> str:
    """Returns what the assembler reports of a PTX file."""
    target = re.search(r"^\.target (\w+)", path.read_text(), re.MULTILINE)
    assert target is not None
    command = [str(PTXAS), "-v", f"-arch={target[1]}", str(path), "-o", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stderr


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    programs = dict(cases())
    with ThreadPoolExecutor(2) as pool:
        figures = dict(zip(programs, pool.map(compile_case, programs.values()), strict=True))
    sys.stdout.write(json.dumps(figures) + "\n")
