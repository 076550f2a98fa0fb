"""The prototype in Mosaic GPU compiles for an H100 that is not there, and is what it should be."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from jobs.run.full_size import _environment
from tests.actors.kernels.gpu.mosaic_experts import shuffle_contracted

ROOT = Path(__file__).parents[4]
PROGRAM = "tests.actors.kernels.gpu.mosaic_experts"


def test_shuffled_bytes_of_a_thread_are_its_operand_of_wgmma() -> None:
    shuffled = shuffle_contracted(np.arange(128).reshape(1, 128))[0]

    for thread in range(4):
        operand: list[int] = []
        # PTX ISA, "Register Fragments for wgmma.mma_async.m64nNk16", matrix A
        for first in range(0, 64, 16):
            pair = first + 2 * thread
            operand += [pair, pair + 1, pair + 8, pair + 9]
        assert shuffled[16 * thread : 16 * thread + 16].tolist() == operand
        assert (shuffled[64 + 16 * thread : 80 + 16 * thread] - 64).tolist() == operand


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mosaic_experts_compile_without_spills_and_shuffles() -> None:
    if not (ROOT / ".venv-aot" / ".installed").exists():
        pytest.skip("the wheels that compile for GPUs are not installed: make aot")
    done = subprocess.run(
        [ROOT / ".venv-aot" / "bin" / "python", "-m", PROGRAM],
        cwd=ROOT,
        env=_environment(1) | {"MOSAIC_GPU_DUMP_PTX": "1", "MOSAIC_GPU_DUMP_PTXAS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    temporaries = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(temporaries.values()) == {0}

    printed = done.stdout + done.stderr
    assert printed.count("0 bytes spill stores, 0 bytes spill loads") == len(temporaries) == 4
    # weights come from registers: the operand after the sums is a list of registers
    products = re.findall(r"wgmma\.mma_async\S* \{[^}]*\}, (.)", printed)
    assert set(products) == {"{"}
    # all tiles are loaded by TMA, and weights from shared memory 16 bytes at a time
    assert "cp.async.bulk.tensor" in printed
    assert len(re.findall(r"ld\.shared\.v4\.b32", printed)) == 28
    # Threads exchange numbers at the end alone, to store sums in rows: one exchange for each pair
    # of the sums, 64 x 64, 64 x 64, 64 x 128 and 128 x 128 of 128 threads.
    sums = 64 * 64 + 64 * 64 + 64 * 128 + 128 * 128
    assert printed.count("shfl.sync.bfly") == sums // 128 // 2
