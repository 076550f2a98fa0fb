"""Variables of the environment in which a replica starts JAX: defaults that its user may override.

The pool passes what concerns Python; the process of the replica adds the rest before it imports
JAX, because the variables of its machine are only there.
"""

import os
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = str(Path(__file__).resolve().parents[2])
DEVICE_COUNT_FLAG = "--xla_force_host_platform_device_count"

# The rest of the memory is for the CUDA context, NCCL's buffers and graphs: 8.5 GB of 85.
GPU_VARIABLES = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9", "NCCL_DEBUG": "WARN"}
GPU_FLAGS = {
    # XLA ends the process when devices wait 30 or 40 s for each other. The first run of a program
    # may take longer; HeartbeatMonitor ends replicas that hang.
    "--xla_gpu_first_collective_call_terminate_timeout_seconds": "600",
    "--xla_gpu_executable_terminate_timeout": "600",
    # off by default: one thread would compile a program of 64 layers
    "--xla_gpu_enable_llvm_module_compilation_parallelism": "true",
}


def process_variables(environment: Mapping[str, str], *, uses_gpus: bool) -> dict[str, str]:
    """Returns the variables that a replica's process is started with, beside its machine's."""
    paths = [REPOSITORY, environment.get("PYTHONPATH", "")]
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if "XLA_FLAGS" in environment:
        variables["XLA_FLAGS"] = environment["XLA_FLAGS"]
    if not uses_gpus:
        variables["JAX_PLATFORMS"] = "cpu"
    return variables


def jax_variables(
    environment: Mapping[str, str], devices: int, *, has_gpus: bool
) -> dict[str, str]:
    """Returns the variables to set in a replica's process before it imports JAX.

    Values that `environment` has are kept, flags of XLA included, but for the number of virtual
    devices: that is the mesh's.

    Args:
        environment: the variables of the process.
        devices: of the replica's mesh. CPUs are split into as many virtual devices, GPUs are not.
        has_gpus: the process has GPUs.
    """
    variables: dict[str, str] = {}
    flags = environment.get("XLA_FLAGS", "")
    if has_gpus:
        flags = with_flags(flags, GPU_FLAGS)
        missing = GPU_VARIABLES.keys() - environment.keys()
        variables = {name: GPU_VARIABLES[name] for name in missing}
    # The mesh decides, and XLA takes the last value.
    variables["XLA_FLAGS"] = f"{flags} {DEVICE_COUNT_FLAG}={devices}".strip()
    return variables


def with_flags(user_flags: str, defaults: Mapping[str, str]) -> str:
    """Returns the flags of a user and, behind them, the defaults of flags that are not among them.

    XLA ends a process whose flags it does not have.
    """
    flags = user_flags.split()
    user_names = {flag.partition("=")[0] for flag in flags}
    for name, value in defaults.items():
        if name not in user_names:
            flags.append(f"{name}={value}")
    return " ".join(flags)
