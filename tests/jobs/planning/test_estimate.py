import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.engine.planning.device_profiles import KernelTime, measurement
from actors.engine.simulation.machines import MachineEstimate
from jobs.planning.config import PlanConfig
from jobs.planning.estimate import machine_plan
from pipeline.errors import ConfigError, DatasetError
from tests.jobs.runs import DEMO


def estimate(config: PlanConfig) -> MachineEstimate:
    (machine,) = machine_plan(config).machines
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


def test_deterministic_calls_of_short_rows_take_longer() -> None:
    """Each of them has the one size that a full call has."""
    config = PlanConfig(rows=32.0, prompt_tokens=60, completion_tokens=20, gpu="h100")

    price = estimate(replace(config, deterministic=True)).busy_s / estimate(config).busy_s

    assert price > 1.5


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    rows = [json.dumps({"prompt_token_ids": [3] * length}) for length in (8, 16, 24, 32)]
    file.write_text("\n".join(rows) + "\n")
    return file


def test_plan_of_data_has_the_lengths_of_its_rows(data: Path) -> None:
    config = PlanConfig(input=str(data), rows=4000.0, max_tokens=10, gpu="h100")

    plan = machine_plan(config)

    assert plan.rows["rows"] == 4000
    assert (plan.rows["rows_sampled"], plan.rows["prompt_tokens"]) == (4, 4000 * 20)
    assert plan.rows["generated_tokens"] == 4000 * 10
    (machine,) = plan.machines
    assert isinstance(machine, MachineEstimate)
    assert machine.prompt_tokens == pytest.approx(4000 * 20)


def test_plan_of_data_takes_a_sample_through_a_template(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps({"q": f"{n} + 1"}) + "\n" for n in range(20)))
    flags: dict[str, Any] = {"template": "{{ q }} =", "sample": 5, "max_tokens": 4}
    config = PlanConfig(
        input=str(file), tokenizer=str(DEMO / "tokenizer.model"), gpu="h100", **flags
    )

    rows = machine_plan(config).rows

    assert (rows["rows"], rows["rows_sampled"], rows["rows_failing"]) == (5, 5, 0)
    assert machine_plan(replace(config, rows=1e3)).rows["rows"] == 1000
    with pytest.raises(ConfigError, match="--sample has no effect: there is no --input"):
        PlanConfig(rows=10.0, prompt_tokens=5, sample=3)


def test_plan_of_data_varies_completions_around_their_mean(data: Path) -> None:
    config = PlanConfig(input=str(data), max_tokens=300, completion_tokens=20, gpu="h100")

    plan = machine_plan(config)

    assert plan.rows["new_tokens_at_most"] == 4 * 300
    assert plan.rows["generated_tokens"] == pytest.approx(4 * 20, rel=0.05)


def test_plan_of_data_that_cannot_run_is_an_error(data: Path) -> None:
    config = PlanConfig(input=str(data), max_tokens=120, max_len=124, gpu="h100")

    with pytest.raises(DatasetError, match=r"none of 4 sampled rows can run, the first: row .*120"):
        machine_plan(config)


def test_machines_are_paid_at_the_price_that_is_given() -> None:
    flags = {"rows": 32.0, "prompt_tokens": 60, "completion_tokens": 20, "gpu": "h100"}
    plan = machine_plan(PlanConfig(**flags, machines=2, cost_per_machine_hour=50.0, currency="EUR"))

    figures = plan.figures()
    (machine,) = figures["machines"]
    assert figures["currency"] == "EUR"
    assert machine["machines"] == 2
    assert machine["cost"] == [50 * machine["machine_hours"][0], 50 * machine["machine_hours"][2]]


def test_rows_longer_than_the_context_are_an_error() -> None:
    config = PlanConfig(rows=10.0, prompt_tokens=8000, completion_tokens=500)

    with pytest.raises(ConfigError, match="expected less than 8192 together"):
        machine_plan(config)
