"""Every kernel of a GPU compiles for one, at the sizes that models have, on a machine without."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jobs.run.full_size import _environment

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    """Returns the figures of every case of compile_kernels.py; needs `make aot`."""
    if not (ROOT / ".venv-aot" / ".installed").exists():
        pytest.skip("the wheels that compile for GPUs are not installed: make aot")
    command = [
        ROOT / ".venv-aot" / "bin" / "python",
        "-m",
        "tests.actors.kernels.gpu.compile_kernels",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=_environment(1),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kernels_compile_and_need_little_memory(compiled: dict[str, Any]) -> None:
    temporary_bytes = {name: case["temporary_bytes"] for name, case in compiled.items()}
    tokens, assignments, ffn = 2048, 2 * 2048, 4096
    # the rows between the two products, and the order of the assignments: nothing of the size of a
    # weight, 201 MB
    assert (
        temporary_bytes[f"experts, {tokens} tokens, one of eight shards of Grok-1"]
        < 1.1 * assignments * ffn * 2
    )
    assert (
        temporary_bytes["experts, 64 tokens, one of eight shards of Grok-1"] < 1.1 * 128 * ffn * 2
    )
    parts, rows = 8, 16
    # the parts of each sequence's result in float32, and which keys are live: nothing of the size
    # of its keys, 268 MB
    assert temporary_bytes["decode, 64 sequences, one of eight shards of Grok-1"] < 64 * (
        1.2 * parts * rows * 128 * 4 + 2 * 8192
    )
    # partial sums of queries, keys and values; the pages, 16.8 MB, are updated in place
    assert temporary_bytes["attention inputs, 64 tokens"] < 1.1 * 8 * 64 * 1024 * 4
    assert temporary_bytes["attention output, 64 tokens"] == 0
    # the addresses of both results
    assert temporary_bytes["norms, 64 tokens"] == 2 * 8
    assert len(compiled) == 43


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kernels_spill_no_register(compiled: dict[str, Any]) -> None:
    """The large tiles of prefill spill a few on A100, whose tensor cores read registers only."""
    for name, case in compiled.items():
        limit = 300 if name == "experts, 2048 tokens, a100-80" else 0
        for kernel, figures in case["kernels"].items():
            assert figures["spilled_bytes"] <= limit, (name, kernel, figures)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_programs_of_decode_share_a_multiprocessor(compiled: dict[str, Any]) -> None:
    """So that one loads weights while the other multiplies."""
    registers = 65536
    shared_bytes = 227 << 10
    warps = 4
    for slots in (8, 64, 256, 512):
        case = compiled[f"experts, {slots} tokens, one of eight shards of Grok-1"]
        products = {name: figures for name, figures in case["kernels"].items() if "grouped" in name}
        assert len(products) == 2
        for name, figures in products.items():
            assert 2 * figures["registers"] * warps * 32 <= registers, (slots, name)
            assert 2 * figures["shared_bytes"] <= shared_bytes, (slots, name)
