"""GPUs that only compile: a name → a mesh of devices that XLA compiles for and nothing can run on.

Needs three wheels beside JAX and no driver: `make aot` installs them. `missing` returns why they
cannot be used, `make_mesh` uses them.
"""

from dataclasses import dataclass
from importlib import metadata

import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from actors.engine.planning.device_profiles import DeviceProfile, load_profile
from actors.model.sharding import AXES
from actors.protocol.errors import ModelError

WHEELS = ("jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12")


@dataclass(frozen=True, slots=True)
class Chip:
    """The properties of a GPU chip that a compilation for it depends on."""

    compute_capability: tuple[int, int]
    fpus: int  # of a multiprocessor
    clock_ghz: float
    shared_bytes: int  # of a multiprocessor; a program may have all but 1 KiB


@dataclass(frozen=True, slots=True)
class Target:
    """A GPU model: its device profile, and what the compiler needs beside it."""

    name: str  # of the profile
    chip: Chip
    reported_bytes: int  # memory that the driver reports; the profile has the nominal one
    l2_cache_bytes: int

    @property
    def profile(self) -> DeviceProfile:
        """The device profile: title, memory, bandwidth, multiprocessors."""
        return load_profile(self.name)


# Source: CUDA C++ Programming Guide, "Compute Capabilities", and NVIDIA's data sheets (clocks);
# memory as the driver reports it on these cards (cudaGetDeviceProperties).
GA100 = Chip((8, 0), fpus=64, clock_ghz=1.41, shared_bytes=164 << 10)
GH100 = Chip((9, 0), fpus=128, clock_ghz=1.98, shared_bytes=228 << 10)
GB100 = Chip((10, 0), fpus=128, clock_ghz=1.965, shared_bytes=228 << 10)

_TARGETS = (
    Target("a100-80", GA100, reported_bytes=85_097_971_712, l2_cache_bytes=40 << 20),
    Target("h100", GH100, reported_bytes=84_942_979_072, l2_cache_bytes=50 << 20),
    Target("h200", GH100, reported_bytes=150_754_820_096, l2_cache_bytes=60 << 20),
    Target("b200", GB100, reported_bytes=191_500_000_000, l2_cache_bytes=126 << 20),
)
TARGETS = {target.name: target for target in _TARGETS}

_DESCRIPTION = """
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  core_count: {profile.multiprocessors}
  fpus_per_core: {chip.fpus}
  clock_rate_ghz: {chip.clock_ghz}
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {program_shared_bytes}
  shared_memory_per_core: {chip.shared_bytes}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  device_memory_size: {target.reported_bytes}
  memory_bandwidth: {profile.memory_bytes_per_s:.0f}
  l2_cache_size: {target.l2_cache_bytes}
}}
platform_name: "CUDA"
runtime_version {{ major: 12 minor: 9 }}
dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "{profile.device_kinds[0]}"
"""


def describe(target: Target) -> str:
    """Returns the description of a GPU that XLA compiles for, in its text format."""
    major, minor = target.chip.compute_capability
    return _DESCRIPTION.format(
        major=major,
        minor=minor,
        chip=target.chip,
        program_shared_bytes=target.chip.shared_bytes - 1024,
        target=target,
        profile=target.profile,
    )


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
    title = target.profile.title
    if reason is not None:
        raise ModelError(
            f"cannot compile for {title}: {reason}; install what is missing with `make aot`"
        )
    topology = topologies.get_topology_desc(
        topology_name=title,
        platform="cuda",
        target_config=describe(target),
        topology=f"1x1x{data * model}",
    )
    devices = np.asarray(topology.devices, dtype=object).reshape(data, model)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto, AxisType.Auto))
