from pathlib import Path
from typing import Any

import pytest

from actors.engine.planning.sizes import HOST_CACHE_BYTES
from actors.engine.simulation.machines import SAMPLED_ROWS, DoesNotFit, MachineEstimate
from actors.model import arithmetic
from actors.model.config import DEMO, parameter_shapes
from jobs.run.dry_run import device_bytes, estimate, figure_lines
from jobs.run.plan import Plan
from pipeline.requests.sample import SAMPLED_SHARDS
from tests.jobs.run.plans import PROMPT, demo_plan


def figures(plan: Plan) -> dict[str, Any]:
    return estimate(plan).figures()


def test_estimate_counts_all_rows_of_a_small_input(tmp_path: Path) -> None:
    values = figures(demo_plan(tmp_path, [PROMPT] * 4, n=2, temperature=1.0))

    assert (values["rows"], values["rows_sampled"], values["rows_failing"]) == (4, 4, 0)
    assert values["prompt_tokens"] == 4 * 2 * len(PROMPT)
    assert values["new_tokens_at_most"] == 4 * 2 * 6
    assert values["padding"] == 0.0
    assert values["batches"] == 1


def test_estimate_scales_a_sample_to_the_rows_of_the_partition(tmp_path: Path) -> None:
    sampled = SAMPLED_ROWS // SAMPLED_SHARDS
    shard_rows = sampled + 10
    rows = 2 * SAMPLED_SHARDS * shard_rows

    plan = demo_plan(tmp_path, [PROMPT] * rows, shard_rows=shard_rows, partition="1/2")
    values = figures(plan)

    assert values["rows"] == rows // 2
    assert values["shards"] == SAMPLED_SHARDS
    assert values["rows_sampled"] == SAMPLED_SHARDS * sampled
    assert values["prompt_tokens"] == rows // 2 * len(PROMPT)


def test_estimate_measures_padding_and_failing_rows(tmp_path: Path) -> None:
    values = figures(demo_plan(tmp_path, [[3] * 12, []]))

    assert values["rows_failing"] == 1
    assert values["prompt_tokens"] == 12
    assert values["padding"] == pytest.approx(1 - 12 / 16)


def test_estimate_of_run_is_the_simulation_of_its_replicas(tmp_path: Path) -> None:
    one = estimate(demo_plan(tmp_path, [PROMPT] * 400, max_tokens=40))
    four = estimate(demo_plan(tmp_path, [PROMPT] * 400, max_tokens=40, replicas="1:4"))

    assert isinstance(one.run, MachineEstimate)
    assert isinstance(four.run, MachineEstimate)
    assert one.figures()["machine_assumed"] == "two CPU cores"
    assert four.figures()["replicas"] == four.run.machines == 4
    assert four.run.busy_s == pytest.approx(one.run.busy_s / 4)
    hours = four.figures()["hours"]
    assert hours == list(four.run.hours)
    assert hours[0] < hours[1] < hours[2]
    assert four.figures()["replica_hours"] == [4 * value for value in hours]


def test_estimate_has_the_price_of_the_flag_or_usual_prices(tmp_path: Path) -> None:
    usual = figures(demo_plan(tmp_path, [PROMPT] * 4, replicas="2"))
    priced = figures(demo_plan(tmp_path, [PROMPT] * 4, replicas="2", cost_per_replica_hour=3.0))

    low, _, high = usual["replica_hours"]
    assert usual["currency"] == "USD"
    assert usual["cost"] == pytest.approx([0.05 * low, 0.2 * high])
    assert priced["currency"] is None
    assert priced["cost"] == pytest.approx([3 * low, 3 * high])


def test_estimate_counts_the_rows_that_the_input_is_a_sample_of(tmp_path: Path) -> None:
    values = estimate(demo_plan(tmp_path, [PROMPT] * 4), 4000).figures()

    assert (values["rows"], values["rows_sampled"]) == (4000, 4)
    assert values["prompt_tokens"] == 4000 * len(PROMPT)


def test_estimate_of_rows_that_cannot_run_has_no_hours(tmp_path: Path) -> None:
    values = figures(demo_plan(tmp_path, [[]], device="gpu"))

    assert values["rows_failing"] == 1
    assert (values["hours"], values["cost"], values["machines"]) == (None, None, [])
    assert values["not_estimated"] == "no sampled row can run"


def test_estimate_of_a_cache_that_is_too_small_has_a_reason(tmp_path: Path) -> None:
    plan = demo_plan(tmp_path, [PROMPT], model="grok-1", dry_run=True, device="cpu")

    estimated = estimate(plan)

    assert isinstance(estimated.run, DoesNotFit)
    assert estimated.figures()["not_estimated"] == (
        "does not fit: a KV cache of 8,192 tokens exceeds its share of the memory"
    )


def test_device_bytes_are_weights_and_cache_of_all_slots(tmp_path: Path) -> None:
    plan = demo_plan(tmp_path, [PROMPT], dtype="float32")
    engine = plan.engine_config()
    token_bytes = arithmetic.cache_bytes(DEMO, 4) + 4  # keys, values and the token's id

    assert device_bytes(plan) == {
        "weights": parameter_shapes(DEMO).stored_bytes,
        "kv_cache": engine.slots * engine.max_len * token_bytes,
    }


def test_device_bytes_are_bounded_by_the_memory_of_the_device(tmp_path: Path) -> None:
    plan = demo_plan(tmp_path, [PROMPT], slots=100_000)
    assert 0.99 * HOST_CACHE_BYTES < device_bytes(plan)["kv_cache"] <= HOST_CACHE_BYTES


def test_estimate_has_the_sizes_of_engines_and_batches(tmp_path: Path) -> None:
    chosen = figures(demo_plan(tmp_path, [PROMPT], mesh="2x1"))
    set_by_flag = figures(demo_plan(tmp_path, [PROMPT], slots=16, batch_tokens=500))

    assert (chosen["slots"], chosen["prefill_tokens"]) == (64, 2048)
    assert chosen["slots_limited_by"] == "the processor: more rows take as much longer"
    assert (chosen["batch_tokens"], chosen["batches_in_flight"]) == (8192, 16)
    assert (set_by_flag["slots"], set_by_flag["slots_limited_by"]) == (16, "--slots")
    assert (set_by_flag["batch_tokens"], set_by_flag["prefill_tokens"]) == (500, 500)


def test_device_bytes_shrink_with_the_model_axis_of_the_mesh(tmp_path: Path) -> None:
    one = device_bytes(demo_plan(tmp_path, [PROMPT]))
    two = device_bytes(demo_plan(tmp_path, [PROMPT], mesh="1x2"))
    data = device_bytes(demo_plan(tmp_path, [PROMPT], mesh="2x1"))

    assert one["weights"] / 2 <= two["weights"] < one["weights"]
    tokens = one["kv_cache"] // (arithmetic.cache_bytes(DEMO, 2) + 4)
    assert two["kv_cache"] == tokens * (arithmetic.cache_bytes(DEMO, 2) // 2 + 4)
    assert data["weights"] == one["weights"]


def test_lines_format_each_figure_by_its_unit() -> None:
    values = {
        "rows": 12345,
        "device_bytes": {"weights": 1_500_000_000},
        "padding": 0.125,
        "hours": [0.51239, 0.6, 12.3],
        "machine_assumed": "8xH100",
        "cost": None,
        "currency": None,
    }

    text = dict(line.rsplit("  ", 1) for line in figure_lines(values))

    assert {name.strip(): value.strip() for name, value in text.items()} == {
        "rows": "12,345",
        "device_bytes weights": "1.500 GB",
        "padding": "12.5%",
        "hours": "0.51-12",
        "machine_assumed": "8xH100",
        "cost": "-",
        "currency": "that of --cost-per-replica-hour",
    }


def test_lines_of_a_gpu_run_have_a_table_of_machines(tmp_path: Path) -> None:
    plan = demo_plan(tmp_path, [PROMPT] * 4, device="gpu", mesh="2x1")

    estimated = estimate(plan)
    text = list(estimated.lines())

    assert "machine_assumed          8xH100" in text
    table = text.index("simulated on 4 requests, for one machine of each kind")
    kinds = [line[:14].strip() for line in text[table + 2 : table + 6]]
    assert kinds == ["8xA100 80 GB", "8xB200", "8xH100", "8xH200"]
    assert max(len(line) for line in text) <= 80
    assert isinstance(estimated.run, MachineEstimate)
    assert estimated.run.machines == 2 / 8, "two of eight devices"
