"""environment.py: defaults of a replica's variables, which never replace a user's."""

import os
import subprocess
import sys

from actors.pool.environment import (
    GPU_FLAGS,
    REPOSITORY,
    jax_variables,
    process_variables,
    with_flags,
)

TIMEOUT = "--xla_gpu_executable_terminate_timeout"


def test_gpu_replica_gets_memory_time_outs_and_warnings_of_nccl() -> None:
    variables = jax_variables({}, 8, has_gpus=True)
    assert variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.9"
    assert variables["NCCL_DEBUG"] == "WARN"
    flags = variables["XLA_FLAGS"].split()
    assert f"{TIMEOUT}=600" in flags
    assert "--xla_gpu_first_collective_call_terminate_timeout_seconds=600" in flags
    assert "--xla_gpu_enable_llvm_module_compilation_parallelism=true" in flags


def test_cpu_replica_gets_virtual_devices_only() -> None:
    variables = jax_variables({}, 4, has_gpus=False)
    assert variables == {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}


def test_variables_of_the_user_are_kept() -> None:
    user = {
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5",
        "NCCL_DEBUG": "INFO",
        "XLA_FLAGS": f"{TIMEOUT}=30 --xla_gpu_autotune_level=0",
    }
    variables = jax_variables(user, 8, has_gpus=True)
    assert variables.keys() == {"XLA_FLAGS"}
    flags = variables["XLA_FLAGS"].split()
    assert flags[:2] == user["XLA_FLAGS"].split()
    assert [flag for flag in flags if flag.startswith(TIMEOUT)] == [f"{TIMEOUT}=30"]
    assert len(flags) == 2 + len(GPU_FLAGS), "virtual devices, and all defaults but one"


def test_flag_without_value_counts_as_set() -> None:
    assert with_flags("--xla_one", {"--xla_one": "true", "--xla_two": "2"}) == (
        "--xla_one --xla_two=2"
    )


def test_virtual_devices_are_those_of_the_mesh() -> None:
    name = "--xla_force_host_platform_device_count"
    variables = jax_variables({"XLA_FLAGS": f"{name}=8"}, 2, has_gpus=False)
    assert variables["XLA_FLAGS"].split()[-1] == f"{name}=2", "XLA takes the last value"


def test_process_runs_this_code_and_cpu_replicas_see_no_gpu() -> None:
    environment = {"PYTHONPATH": "/user", "XLA_FLAGS": "--xla_one=1", "HOME": "/home/user"}
    variables = process_variables(environment, uses_gpus=True)
    assert variables == {
        "PYTHONPATH": os.pathsep.join([REPOSITORY, "/user"]),
        "XLA_FLAGS": "--xla_one=1",
    }
    variables = process_variables({}, uses_gpus=False)
    assert variables == {"PYTHONPATH": REPOSITORY, "JAX_PLATFORMS": "cpu"}


def test_installed_xla_has_all_flags() -> None:
    """XLA ends a process that is given a flag that it does not have."""
    flags = with_flags("", GPU_FLAGS)
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert process.returncode == 0, process.stderr
