"""Traces a run on GPUs: the time of each kernel, and how long the device was busy.

Reads the trace of JAX's profiler, which times kernels on the device itself.
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.profiler import ProfileData, ProfileOptions

GPU_PLANE = "/device:GPU"
STREAM_LINE = "Stream"  # other lines of a plane repeat the events, by operation or by module
NS = 1e-9


@dataclass(frozen=True)
class KernelTime:
    """All runs of one kernel."""

    name: str
    launches: int
    seconds: float


@dataclass(frozen=True)
class GpuTrace:
    """The kernels of a run, longest first.

    `busy_s` is the time in which at least one kernel ran, `span_s` the time from the start of the
    first kernel to the end of the last one.
    """

    kernels: tuple[KernelTime, ...]
    busy_s: float
    span_s: float

    def seconds_of(self, part_of_name: str) -> float:
        """Returns the seconds of all kernels whose name contains a text."""
        return sum(kernel.seconds for kernel in self.kernels if part_of_name in kernel.name)

    @property
    def launches(self) -> int:
        """The number of kernels that ran."""
        return sum(kernel.launches for kernel in self.kernels)


@dataclass(frozen=True)
class _Event:
    name: str
    start_ns: float
    end_ns: float


def trace_gpu(run: Callable[[], object]) -> GpuTrace | None:
    """Returns the kernels of `run`; None without a GPU, where nothing runs."""
    if jax.devices()[0].platform != "gpu":
        return None
    options = ProfileOptions()
    options.python_tracer_level = 0
    options.host_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            jax.block_until_ready(run())
        profiles = [ProfileData.from_file(str(file)) for file in Path(folder).rglob("*.xplane.pb")]
    return read_profiles(profiles)


def read_profiles(profiles: Iterable[ProfileData]) -> GpuTrace | None:
    """Returns the kernels of profiles; None where they have no kernel of a GPU."""
    events: list[_Event] = []
    for profile in profiles:
        events.extend(_events(profile))
    if not events:
        return None

    seconds: dict[str, float] = {}
    launches: dict[str, int] = {}
    for event in events:
        duration_s = (event.end_ns - event.start_ns) * NS
        seconds[event.name] = seconds.get(event.name, 0.0) + duration_s
        launches[event.name] = launches.get(event.name, 0) + 1
    kernels = [KernelTime(name, launches[name], seconds[name]) for name in seconds]
    kernels.sort(key=lambda kernel: -kernel.seconds)

    last_end_ns = max(event.end_ns for event in events)
    first_start_ns = min(event.start_ns for event in events)
    return GpuTrace(tuple(kernels), _busy_ns(events) * NS, (last_end_ns - first_start_ns) * NS)


def _events(profile: ProfileData) -> Iterable[_Event]:
    """Yields the kernels and copies of all streams."""
    for plane in profile.planes:
        if not plane.name.startswith(GPU_PLANE):
            continue
        for line in plane.lines:
            if not line.name.startswith(STREAM_LINE):
                continue
            for event in line.events:
                yield _Event(event.name, event.start_ns, event.start_ns + event.duration_ns)


def _busy_ns(events: Iterable[_Event]) -> float:
    """Returns the length of the union of the events' times."""
    busy_ns = 0.0
    covered_until_ns = float("-inf")
    for event in sorted(events, key=lambda event: event.start_ns):
        uncovered_from_ns = max(event.start_ns, covered_until_ns)
        busy_ns += max(0.0, event.end_ns - uncovered_from_ns)
        covered_until_ns = max(covered_until_ns, event.end_ns)
    return busy_ns
