import json
from dataclasses import replace
from typing import Any

import pytest

from actors.engine.planning.device_profiles import (
    KERNELS,
    KernelTime,
    load_profile,
    measurement,
    profile_names,
    read_measurement,
    read_profile,
)
from actors.protocol.errors import ModelError

MEASURED = KernelTime(
    "experts_out",
    tokens=64,
    low_us=78.0,
    high_us=79.5,
    status="measured",
    source="python jobs/check_gpu.py --json",
    date="2026-11-26",
    hardware="NVIDIA H100 80GB HBM3, jax 0.10.2",
)


def h100_values() -> dict[str, Any]:
    profile = load_profile("h100")
    values = {name: getattr(profile, name) for name in profile.__slots__ if name != "times"}
    return {"schema_version": 1, **values, "times": measurement(profile.times)["times"]}


def test_profiles_of_all_names_are_valid() -> None:
    names = profile_names()

    assert names == ("a100-80", "b200", "cpu", "h100", "h200")
    assert all(load_profile(name).name == name for name in names)


def test_h100_profile_has_estimated_times_of_every_kernel() -> None:
    profile = load_profile("h100")

    assert {time.kernel for time in profile.times} == set(KERNELS)
    assert all(profile.times_of(kernel) for kernel in KERNELS)
    assert profile.measured_kernels == ()


def test_profile_estimates_of_other_gpus_come_from_the_h100() -> None:
    for name in ("a100-80", "b200", "h200"):
        assert load_profile(name).estimates_from == "h100"


def test_profile_survives_a_round_trip_through_json() -> None:
    assert read_profile(json.dumps(h100_values())) == load_profile("h100")


def test_measurement_survives_a_round_trip_through_json() -> None:
    assert read_measurement(json.dumps(measurement([MEASURED]))) == (MEASURED,)


def test_measured_times_replace_all_estimates_of_their_kernel() -> None:
    profile = load_profile("h100").with_times([MEASURED])

    assert profile.times_of("experts_out") == (MEASURED,)
    assert profile.measured_kernels == ("experts_out",)
    assert profile.times_of("routing") == load_profile("h100").times_of("routing")


def test_later_measurement_replaces_an_earlier_one_of_equal_sizes() -> None:
    later = replace(MEASURED, low_us=70.0, high_us=71.0)

    profile = load_profile("h100").with_times([MEASURED]).with_times([later])

    assert profile.times_of("experts_out") == (later,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": "softmax"}, "expected a kernel of experts_gate_value, .* got 'softmax'"),
        ({"tokens": 0}, "expected tokens >= 1 and context >= 0, got 0 and 0"),
        ({"low_us": 80.0}, "expected 0 < low_us <= high_us, got 80.0 and 79.5"),
        ({"status": "guessed"}, "expected estimated or measured, got 'guessed'"),
        ({"date": None}, "a measured time needs a date and the hardware"),
        ({"source": ""}, "source is empty"),
        ({"kernel": "attention_decode"}, "expected a context for the two attention kernels only"),
    ],
)
def test_kernel_time_rejects_invalid_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        replace(MEASURED, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version: expected 1, got 2"),
        ({"times": None}, "times: expected a list"),
        ({"times": [3]}, "kernel time: expected a JSON object, got 3"),
        (
            {"times": [{"kernel": "routing"}]},
            "missing keys high_us, low_us, source, status, tokens",
        ),
        ({"colour": "red"}, "unknown keys colour"),
        ({"flops_per_s": 0}, "device h100: flops_per_s must be above 0, got 0"),
        ({"machine_hour_usd": [9, 3]}, r"machine_hour_usd must be a range \[low, high\]"),
        ({"multiprocessors": 1.5}, "multiprocessors: expected a whole number, got 1.5"),
        ({"compile_s": [1]}, "compile_s: expected a list of two numbers"),
        ({"flops_per_s": "many"}, "device profile: flops_per_s: expected a number, got 'many'"),
    ],
)
def test_profile_rejects_invalid_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_profile(json.dumps(h100_values() | changes))


def test_profile_rejects_a_text_that_is_not_an_object() -> None:
    with pytest.raises(ModelError, match="not valid JSON"):
        read_profile("{")
    with pytest.raises(ModelError, match="expected a JSON object, got list"):
        read_profile("[]")


def test_load_profile_names_the_profiles_for_an_unknown_one() -> None:
    with pytest.raises(ModelError, match=r"expected one of a100-80, .*, got 'h900'"):
        load_profile("h900")
