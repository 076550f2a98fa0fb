from collections.abc import Sequence
from typing import Any

import pytest

from actors.engine.config import EngineConfig
from actors.engine.planning.device_profiles import load_profile
from actors.engine.planning.sizes import SizeFlags
from actors.engine.simulation.machines import (
    DoesNotFit,
    MachineEstimate,
    MachineEstimates,
    StartUp,
    Workload,
    divisors,
)
from actors.engine.simulation.synthetic import RowLengths, synthetic_rows
from actors.model.config import GROK_1

ROWS = synthetic_rows(RowLengths(64, 16, prefix_tokens=32), 64, vocab_size=500, seed=0)


def estimates(
    scale: float = 1.0, slots: int | None = 16, max_len: int = 1024, **values: Any
) -> MachineEstimates:
    batches = [ROWS.requests[start : start + 8] for start in range(0, 64, 8)]
    workload = Workload(
        batches=batches,
        scale=scale,
        batches_in_flight=values.get("batches_in_flight"),
        completion_tokens=ROWS.tokens_of,
    )
    engine = EngineConfig(max_len=max_len)
    flags = SizeFlags(slots=slots, prefill_tokens=512)
    return MachineEstimates(GROK_1, engine, workload, flags, request_tokens=128.0)


def fitting(
    name: str, *, shards: Sequence[int] | None = None, machines: float = 1.0, **values: Any
) -> MachineEstimate:
    estimate = estimates(**values).estimate(load_profile(name), shards, machines)
    assert isinstance(estimate, MachineEstimate)
    return estimate


def test_grok_1_runs_on_eight_h100_as_one_replica() -> None:
    estimate = fitting("h100")

    assert estimate.layout.mesh == "1x8"
    assert estimate.layout.replicas == 1
    assert estimate.layout.slots == 16
    assert estimate.layout.weight_bytes == pytest.approx(39.6e9, rel=0.01)


def test_large_memory_allows_replicas_on_fewer_devices() -> None:
    estimate = fitting("b200", shards=[2, 4])

    assert estimate.layout.replicas in {2, 4}
    assert estimate.layout.replicas * estimate.layout.model_shards == 8


def test_model_that_exceeds_the_memory_does_not_fit() -> None:
    estimate = estimates().estimate(load_profile("h100"), [4])

    assert isinstance(estimate, DoesNotFit)
    assert estimate.reason == (
        "weights take 80 of 80 GB of each device, 1,024 tokens do not fit beside them"
    )


def test_model_that_does_not_split_does_not_fit() -> None:
    estimate = estimates().estimate(load_profile("h100"), [3])

    assert isinstance(estimate, DoesNotFit)
    assert estimate.reason == "the model does not split over 3 devices"


def test_slots_are_chosen_from_memory_as_a_run_chooses_them() -> None:
    assert fitting("h100", slots=None).layout.slots == 512


def test_hours_grow_in_proportion_to_the_rows_of_a_long_run() -> None:
    """Beyond the sample, each row takes as long as those of its second half."""
    runs = [fitting("h100", shards=[8], scale=scale) for scale in (1e3, 2e3, 3e3)]

    first_s = runs[1].busy_s - runs[0].busy_s
    second_s = runs[2].busy_s - runs[1].busy_s
    assert first_s == pytest.approx(second_s)
    assert first_s == pytest.approx(runs[0].busy_s, rel=0.01)


def test_sample_that_is_the_whole_run_takes_the_time_of_its_calls() -> None:
    estimate = fitting("h100", shards=[8])

    assert estimate.generated_tokens == sum(ROWS.completion_tokens)
    start_up = estimate.start_up
    middle_s = start_up.total_s[1]
    assert estimate.hours[1] * 3600 == pytest.approx(middle_s + estimate.busy_s)
    assert estimate.generated_per_s == estimate.generated_tokens / estimate.busy_s


def test_programs_compile_while_weights_load() -> None:
    start_up = StartUp(boot_s=(100.0, 600.0), load_s=(64.0, 255.0), compile_s=(30.0, 300.0))

    assert start_up.total_s == (164.0, 532.0, 900.0)
    assert start_up.after_load_s == (0.0, 236.0)


def test_costs_are_a_range_of_hours_times_prices() -> None:
    estimate = fitting("h100", scale=1e3)

    low, high = estimate.cost
    assert low == estimate.hours[0] * 16
    assert high == estimate.hours[2] * 55
    millions = (estimate.prompt_tokens + estimate.generated_tokens) / 1e6
    assert estimate.cost_per_million_tokens == (low / millions, high / millions)
    assert estimate.hours[0] < estimate.hours[1] < estimate.hours[2]


def test_machines_share_the_rows_and_each_of_them_starts() -> None:
    one = fitting("h100", shards=[8], scale=1e4)
    four = fitting("h100", shards=[8], scale=1e4, machines=4.0)

    assert four.busy_s == pytest.approx(one.busy_s / 4, rel=0.01)
    start_up_hours = four.start_up.total_s[1] / 3600
    assert four.hours[1] == pytest.approx(start_up_hours + four.busy_s / 3600)
    assert four.machine_hours[1] == pytest.approx(4 * four.hours[1])
    assert four.cost[0] == pytest.approx(4 * four.hours[0] * 16)
    assert four.tokens_per_s == pytest.approx(4 * one.tokens_per_s, rel=0.01)


def test_limits_are_shares_of_the_time_in_descending_order() -> None:
    estimate = fitting("h100")

    shares = list(estimate.limits.values())
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    assert estimate.binding_limit == "weights"
    assert 0 < estimate.roof_share < 1


def test_too_few_batches_in_flight_leave_slots_idle() -> None:
    starved = fitting("h100", shards=[8], slots=32, batches_in_flight=1)
    fed = fitting("h100", shards=[8], slots=32)

    assert starved.idle_slot_share > fed.idle_slot_share
    assert starved.busy_s > fed.busy_s


def test_divisors_are_in_ascending_order() -> None:
    assert divisors(8) == [1, 2, 4, 8]
