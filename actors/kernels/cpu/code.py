"""Compiles machine code for this process's CPU and registers it with XLA.

The experts of `ffn.py` are compiled in memory and become targets of XLA's foreign function
interface. Each instruction set is compiled at most once in a process, when it is first needed, in
half a second. A program in JAX's cache names its target; tracing the program registers it.
"""

import ctypes
import logging
import threading
from collections.abc import Callable
from functools import lru_cache

import jax
import llvmlite.binding as llvm

from actors.kernels.cpu import amx
from actors.kernels.cpu.ffn import write_experts, write_matrix
from actors.kernels.cpu.llvm_text import Module
from actors.kernels.cpu.tiles import AMX_BF16, AVX2, AVX512, AVX512_BF16, InstructionSet
from actors.protocol.errors import ModelError

# Version of the arguments: part of the name, so that an older program in a cache does not call
# newer code.
VERSION = 2
BEST_FIRST = (AMX_BF16, AVX512_BF16, AVX512, AVX2)

_LOG = logging.getLogger(__name__)
_lock = threading.Lock()
# By name. XLA keeps the addresses for the life of the process, so the code is never freed.
_compiled: dict[str, llvm.ExecutionEngine] = {}


@lru_cache
def instruction_sets() -> tuple[InstructionSet, ...]:
    """Returns what this CPU can run, the best first; () on CPUs without kernels."""
    try:
        features = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM has no such list for this platform
        return ()
    supported = {name for name, is_supported in features.items() if is_supported}
    machines = [machine for machine in BEST_FIRST if supported.issuperset(machine.needs)]
    if AMX_BF16 in machines and not amx.is_granted():
        machines.remove(AMX_BF16)
        _LOG.warning(
            "Linux does not grant AMX's tile registers to this process: products of bfloat16 "
            "rows take several times as long; expected Linux 5.16 or newer"
        )
    return tuple(machines)


def experts_target(machine: InstructionSet, *, bfloat16: bool) -> str:
    """Returns the name of the experts' function for `jax.ffi.ffi_call`, see `_register`."""
    dtype = "bfloat16" if bfloat16 else "float32"

    def text(name: str) -> str:
        return experts_text(machine, name, bfloat16=bfloat16)

    return _register(machine, f"experts_{dtype}", text)


def matrix_target(machine: InstructionSet, *, is_table: bool) -> str:
    """Returns the name of the function of one matrix for `jax.ffi.ffi_call`, see `_register`."""

    def text(name: str) -> str:
        module = Module()
        write_matrix(module, machine, name, is_table=is_table)
        return module.text

    return _register(machine, "table" if is_table else "matrix", text)


def _register(machine: InstructionSet, kind: str, text: Callable[[str], str]) -> str:
    """Returns the name of a function that is compiled and registered; `text` writes its module.

    Raises:
        ModelError: this process may not use the instruction set.
    """
    if machine.has_tile_registers and not amx.is_granted():
        raise ModelError(
            f"experts packed for {machine.name}: Linux does not grant the tile registers of AMX "
            "to this process; expected weights packed for another instruction set"
        )
    name = f"grok_batch_{kind}_{VERSION}_{machine.name}"
    with _lock:
        if name not in _compiled:
            engine = _compile(text(name))
            address = ctypes.c_void_p(engine.get_function_address(name))
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(address), platform="cpu")
            _compiled[name] = engine
    return name


def experts_text(machine: InstructionSet, name: str, *, bfloat16: bool) -> str:
    """Returns the module of the experts in LLVM's language."""
    module = Module()
    write_experts(module, machine, name, bfloat16=bfloat16)
    return module.text


def target_machine(cpu: str | None = None) -> llvm.TargetMachine:
    """Returns LLVM's compiler for a CPU by name, or for this one."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten() if cpu is None else ""
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=cpu or llvm.get_host_cpu_name(), features=features, opt=3, jit=True
    )


def optimized(text: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    """Returns a module's text, checked and optimised for a machine."""
    module = llvm.parse_assembly(text)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    # vectors and unrolled loops are written as such
    tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = False
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    return module


def _compile(text: str) -> llvm.ExecutionEngine:
    machine = target_machine()
    engine = llvm.create_mcjit_compiler(optimized(text, machine), machine)
    engine.finalize_object()
    return engine
