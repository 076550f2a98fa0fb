import json
from pathlib import Path

import pytest

from actors.engine.planning.device_profiles import KernelTime, measurement
from actors.engine.simulation.machines import MachineEstimate
from jobs.planning.config import PlanConfig
from jobs.planning.estimate import machine_estimates
from pipeline.errors import ConfigError


def estimate(config: PlanConfig) -> MachineEstimate:
    (machine,) = machine_estimates(config)
    assert isinstance(machine, MachineEstimate)
    return machine


def test_estimate_scales_the_sample_to_all_rows() -> None:
    config = PlanConfig(rows=64.0, prompt_tokens=60, completion_tokens=20, gpu="h100")

    machine = estimate(config)

    assert machine.generated_tokens == pytest.approx(64 * 20, rel=0.2)
    assert machine.layout.mesh == "1x8"


def test_estimate_uses_the_times_of_a_measurement(tmp_path: Path) -> None:
    slow = KernelTime(
        "experts_out", 64, 5e3, 5e3, "measured", "command", date="2026-11-26", hardware="H100"
    )
    file = tmp_path / "times.json"
    file.write_text(json.dumps(measurement([slow])))
    config = PlanConfig(rows=32.0, prompt_tokens=60, completion_tokens=20, gpu="h100")
    measured = PlanConfig(
        rows=32.0, prompt_tokens=60, completion_tokens=20, gpu="h100", measurement=str(file)
    )

    assert estimate(measured).busy_s > 2 * estimate(config).busy_s
    assert estimate(measured).profile.measured_kernels == ("experts_out",)


def test_rows_longer_than_the_context_are_an_error() -> None:
    config = PlanConfig(rows=10.0, prompt_tokens=8000, completion_tokens=500)

    with pytest.raises(ConfigError, match="expected less than 8192 together"):
        machine_estimates(config)
