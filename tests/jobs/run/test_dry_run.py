from pathlib import Path

import pytest

from actors.engine.planning.sizes import HOST_CACHE_BYTES
from actors.model import arithmetic
from actors.model.config import DEMO, parameter_shapes
from jobs.run.dry_run import device_bytes, estimate, lines, machine_lines
from pipeline.requests.sample import SAMPLED_ROWS, SAMPLED_SHARDS
from tests.jobs.run.plans import PROMPT, demo_plan


def test_estimate_counts_all_rows_of_a_small_input(tmp_path: Path) -> None:
    values = estimate(demo_plan(tmp_path, [PROMPT] * 4, n=2, temperature=1.0))

    assert (values["rows"], values["rows_sampled"], values["rows_failing"]) == (4, 4, 0)
    assert values["prompt_tokens"] == 4 * 2 * len(PROMPT)
    assert values["new_tokens_at_most"] == 4 * 2 * 6
    assert values["padding"] == 0.0
    assert values["batches"] == 1


def test_estimate_scales_a_sample_to_the_rows_of_the_partition(tmp_path: Path) -> None:
    shard_rows = SAMPLED_ROWS + 10
    rows = 2 * SAMPLED_SHARDS * shard_rows

    plan = demo_plan(tmp_path, [PROMPT] * rows, shard_rows=shard_rows, partition="1/2")
    values = estimate(plan)

    assert values["rows"] == rows // 2
    assert values["shards"] == SAMPLED_SHARDS
    assert values["rows_sampled"] == SAMPLED_SHARDS * SAMPLED_ROWS
    assert values["prompt_tokens"] == rows // 2 * len(PROMPT)


def test_estimate_measures_padding_and_failing_rows(tmp_path: Path) -> None:
    values = estimate(demo_plan(tmp_path, [[3] * 12, []]))

    assert values["rows_failing"] == 1
    assert values["prompt_tokens"] == 12
    assert values["padding"] == pytest.approx(1 - 12 / 16)


def test_estimate_divides_hours_over_replicas_and_multiplies_cost(tmp_path: Path) -> None:
    one = estimate(demo_plan(tmp_path, [PROMPT] * 4))
    four = estimate(demo_plan(tmp_path, [PROMPT] * 4, replicas="1:4", cost_per_replica_hour=2.0))

    hours = four["replica_hours"]
    assert isinstance(hours, float)
    assert hours == one["replica_hours"] > 0
    assert four["hours"] == pytest.approx(hours / 4)
    assert four["cost"] == pytest.approx(2 * hours)
    assert one["cost"] is None


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
    chosen = estimate(demo_plan(tmp_path, [PROMPT], mesh="2x1"))
    set_by_flag = estimate(demo_plan(tmp_path, [PROMPT], slots=16, batch_tokens=500))

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
    figures = {
        "rows": 12345,
        "device_bytes": {"weights": 1_500_000_000},
        "padding": 0.125,
        "hours": 0.51239,
        "device_assumed": "H100",
        "cost": None,
    }

    text = dict(line.rsplit("  ", 1) for line in lines(figures))

    assert {name.strip(): value.strip() for name, value in text.items()} == {
        "rows": "12,345",
        "device_bytes weights": "1.500 GB",
        "padding": "12.5%",
        "hours": "0.5124",
        "device_assumed": "H100",
        "cost": "- (give --cost-per-replica-hour)",
    }


def test_machine_lines_estimate_each_kind_of_machine(tmp_path: Path) -> None:
    plan = demo_plan(tmp_path, [PROMPT] * 4, device="gpu")

    text = list(machine_lines(plan))

    assert text[1] == "simulated on 4 requests, for one machine of each kind"
    machines = [line[:14].strip() for line in text[3:7]]
    assert machines == ["8xH100", "8xH200", "8xA100 80 GB", "8xB200"]
    assert max(len(line) for line in text) <= 80


def test_machine_lines_of_an_input_without_requests_are_empty(tmp_path: Path) -> None:
    assert list(machine_lines(demo_plan(tmp_path, [[]], device="gpu"))) == []
