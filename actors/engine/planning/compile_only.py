"""GPUs that only compile: a name → a mesh of devices that XLA compiles for and nothing can run on.

Needs three wheels beside JAX and no driver: `make aot` installs them. `missing` returns why they
cannot be used, `make_mesh` uses them.
"""

from dataclasses import dataclass
from importlib import metadata

import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from actors.model.sharding import AXES
from actors.protocol.errors import ModelError

WHEELS = ("jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12")


@dataclass(frozen=True, slots=True)
class Target:
    """A GPU model: the properties that a compilation for it depends on."""

    title: str
    device_kind: str  # as the driver names it
    capacity_bytes: int  # nominal memory: the limit of a plan
    memory_bytes: int  # memory that the driver reports
    bytes_per_s: int
    l2_cache_bytes: int


# Source: NVIDIA's data sheets (capacity, bandwidth) and what the driver reports on these cards
# (cudaGetDeviceProperties).
TARGETS = {
    "h100": Target(
        "H100", "NVIDIA H100 80GB HBM3", 80 * 10**9, 84_942_979_072, 3_352_320_000_000, 50 << 20
    ),
    "h200": Target(
        "H200", "NVIDIA H200", 141 * 10**9, 150_754_820_096, 4_800_000_000_000, 60 << 20
    ),
}

# Both are the same chip (GH100, compute capability 9.0). Source: CUDA C++ Programming Guide,
# "Compute Capabilities".
_HOPPER = """
gpu_device_info {{
  cuda_compute_capability {{ major: 9 minor: 0 }}
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  device_memory_size: {memory_bytes}
  memory_bandwidth: {bytes_per_s}
  l2_cache_size: {l2_cache_bytes}
}}
platform_name: "CUDA"
runtime_version {{ major: 12 minor: 9 }}
dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "{kind}"
"""


def missing() -> str | None:
    """Returns why nothing can be compiled for a GPU here, None where everything is installed."""
    versions: dict[str, str] = {}
    for name in WHEELS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            return f"{name} is not installed"

    jax_version = metadata.version("jax")
    mismatches: list[str] = []
    for name, version in versions.items():
        if name.startswith("jax") and version != jax_version:
            mismatches.append(f"{name} {version}")
    if mismatches:
        return f"{' and '.join(mismatches)} beside jax {jax_version}"
    return None


def make_mesh(target: Target, data: int, model: int) -> Mesh:
    """Returns the mesh ("data", "model") of data x model GPUs of one host that only compile.

    Raises:
        ModelError: the wheels are not installed, or of another version than JAX.
    """
    reason = missing()
    if reason is not None:
        raise ModelError(
            f"cannot compile for {target.title}: {reason}; install what is missing with `make aot`"
        )
    description = _HOPPER.format(
        memory_bytes=target.memory_bytes,
        bytes_per_s=target.bytes_per_s,
        l2_cache_bytes=target.l2_cache_bytes,
        kind=target.device_kind,
    )
    topology = topologies.get_topology_desc(
        topology_name=target.title,
        platform="cuda",
        target_config=description,
        topology=f"1x1x{data * model}",
    )
    devices = np.asarray(topology.devices, dtype=object).reshape(data, model)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto, AxisType.Auto))
