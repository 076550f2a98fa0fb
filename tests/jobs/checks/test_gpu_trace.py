"""gpu_trace.py: times of kernels in a profile, and how long the device was busy."""

import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from jobs.checks.gpu_trace import KernelTime, read_profiles, trace_gpu


def profile(plane: str, line: str) -> ProfileData:
    """Returns a profile with kernels at 0-4 and 10-12 us, and a copy at 3-5 us."""
    events = ""
    for metadata, start_us, duration_us in ((1, 0, 4), (2, 3, 2), (1, 10, 2)):
        events += (
            f"events {{ metadata_id: {metadata} offset_ps: {start_us}000000 "
            f"duration_ps: {duration_us}000000 }} "
        )
    return ProfileData.from_text_proto(
        f'planes {{ name: "{plane}" lines {{ name: "{line}" {events} }} '
        'event_metadata { key: 1 value { id: 1 name: "experts" } } '
        'event_metadata { key: 2 value { id: 2 name: "copy" } } }'
    )


def test_profile_gives_the_time_of_each_kernel() -> None:
    trace = read_profiles([profile("/device:GPU:0 (CUDA)", "Stream #13(Compute)")])

    assert trace is not None
    experts, copy = trace.kernels
    assert experts == KernelTime("experts", 2, pytest.approx(6e-6))
    assert copy == KernelTime("copy", 1, pytest.approx(2e-6))
    assert trace.launches == 3
    assert trace.seconds_of("exp") == pytest.approx(6e-6)


def test_kernels_at_the_same_time_count_once_as_busy() -> None:
    trace = read_profiles([profile("/device:GPU:0", "Stream #1")])

    assert trace is not None
    assert trace.busy_s == pytest.approx(7e-6)
    assert trace.span_s == pytest.approx(12e-6)


@pytest.mark.parametrize(
    ("plane", "line"), [("/host:CPU", "Stream #1"), ("/device:GPU:0", "XLA Ops")]
)
def test_profile_without_streams_of_a_gpu_has_no_trace(plane: str, line: str) -> None:
    assert read_profiles([profile(plane, line)]) is None


def test_trace_without_a_gpu_is_none() -> None:
    assert trace_gpu(lambda: jnp.ones(3)) is None
