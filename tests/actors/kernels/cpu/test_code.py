"""Machine code for CPUs: it compiles for every processor that the kernels are written for."""

import llvmlite.binding as llvm
import pytest

from actors.kernels.cpu.code import BEST_FIRST, experts_text, optimized, target_machine
from actors.kernels.cpu.tiles import InstructionSet

CPUS = ("sapphirerapids", "znver4", "skylake-avx512", "haswell")
INSTRUCTIONS = {
    "amx_bf16": "tdpbf16ps",
    "avx512_bf16": "vdpbf16ps",
    "avx512": "%zmm",
    "avx2": "vfmadd",
}


@pytest.mark.parametrize(("machine", "cpu"), list(zip(BEST_FIRST, CPUS, strict=True)))
def test_code_compiles_for_other_cpus(machine: InstructionSet, cpu: str) -> None:
    if not llvm.get_process_triple().startswith("x86_64"):
        pytest.skip("LLVM compiles for this machine's kind of processor only")
    code = optimized(experts_text(machine, "experts", bfloat16=True), target_machine(cpu))
    assembly = target_machine(cpu).emit_assembly(code)
    assert INSTRUCTIONS[machine.name] in assembly
