"""Every kernel of a GPU compiles for one, at the sizes that models have, on a machine without."""

import json
import subprocess
from pathlib import Path

import pytest

from jobs.run.full_size import _environment

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def compiled() -> dict[str, int]:
    """Returns the bytes of temporaries of every case of compile_kernels.py; needs `make aot`."""
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
    sizes: dict[str, int] = json.loads(done.stdout.strip().splitlines()[-1])
    return sizes


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kernels_compile_and_need_little_memory(compiled: dict[str, int]) -> None:
    tokens, assignments, ffn = 2048, 2 * 2048, 4096
    # the rows between the two products, and the order of the assignments: nothing of the size of a
    # weight, 201 MB
    assert (
        compiled[f"experts, {tokens} tokens, one of eight shards of Grok-1"]
        < 1.1 * assignments * ffn * 2
    )
    assert compiled["experts, 64 tokens, one of eight shards of Grok-1"] < 1.1 * 128 * ffn * 2
    parts, rows = 8, 16
    # the parts of each sequence's result in float32, and which keys are live: nothing of the size
    # of its keys, 268 MB
    assert compiled["decode, 64 sequences, one of eight shards of Grok-1"] < 64 * (
        1.2 * parts * rows * 128 * 4 + 2 * 8192
    )
    assert len(compiled) == 13
