from dataclasses import replace

import pytest

from actors.engine.planning.device_profiles import (
    DeviceProfile,
    KernelTime,
    ModelShard,
    load_profile,
)
from actors.engine.simulation.call_costs import LIMITS, NO_COST, CallCosts
from actors.engine.simulation.floors import model_shard
from actors.model.config import DEMO, GROK_1

H100 = load_profile("h100")
SHARD = model_shard(GROK_1, 8)
PROJECTIONS = ("attention_inputs", "attention_output")


def costs(
    profile: DeviceProfile = H100, shard: ModelShard = SHARD, position: float = 0.5
) -> CallCosts:
    return CallCosts(profile, shard, GROK_1.num_layers, position)


def with_fifteen_routing_kernels(profile: DeviceProfile) -> DeviceProfile:
    """Returns a profile with the routing that the design's figures were estimated for."""
    times = [time for time in profile.times if time.kernel != "routing"]
    for tokens, low_us, high_us in ((64, 38.0, 45.0), (128, 40.0, 47.0), (2048, 85.0, 100.0)):
        times.append(KernelTime("routing", tokens, low_us, high_us, "estimated", "design"))
    return replace(profile, times=tuple(times))


def with_projections_of_xla(profile: DeviceProfile) -> DeviceProfile:
    """Returns a profile with the projections that the design's figures were estimated for.

    Query, key and value in one product, their rotation and two page writes in three kernels; the
    output in a product and a conversion.
    """
    inputs = ((64, 14.5, 16.5), (128, 15.5, 17.5), (512, 23.0, 27.0), (2048, 70.0, 90.0))
    outputs = ((64, 10.0, 10.0), (128, 11.0, 11.0), (512, 15.0, 17.0), (2048, 35.0, 42.0))
    times = [time for time in profile.times if time.kernel not in PROJECTIONS]
    for kernel, sizes in zip(PROJECTIONS, (inputs, outputs), strict=True):
        for tokens, low_us, high_us in sizes:
            times.append(KernelTime(kernel, tokens, low_us, high_us, "estimated", "design"))
    return replace(profile, times=tuple(times))


def with_norms_of_xla(profile: DeviceProfile) -> DeviceProfile:
    """Returns a profile with the norms that the design's figures were estimated for: 3 kernels."""
    times = [time for time in profile.times if time.kernel != "norms"]
    for tokens, low_us, high_us in ((64, 12.0, 12.0), (128, 14.0, 14.0), (2048, 95.0, 115.0)):
        times.append(KernelTime("norms", tokens, low_us, high_us, "estimated", "design"))
    return replace(profile, times=tuple(times))


def test_costs_reproduce_the_expected_times_of_the_design() -> None:
    """8xH100 at context 512: the figures that the table's sums were written for."""
    profile = with_norms_of_xla(with_projections_of_xla(with_fifteen_routing_kernels(H100)))
    before = costs(profile)

    step_64_s = before.decode(64, 8, 64, 512).total_s / 8
    step_128_s = before.decode(128, 8, 128, 512).total_s / 8
    prefill_s = before.prefill(2048, 512).total_s

    assert 0.024 <= step_64_s <= 0.025
    assert 64 / step_64_s == pytest.approx(2600, rel=0.02)
    assert 0.027 <= step_128_s <= 0.028
    assert 128 / step_128_s == pytest.approx(4650, rel=0.02)
    assert 0.145 <= prefill_s <= 0.155


def test_routing_in_two_kernels_saves_two_milliseconds_of_a_step() -> None:
    before = costs(with_fifteen_routing_kernels(H100)).decode(64, 8, 64, 512).total_s / 8
    after = costs().decode(64, 8, 64, 512).total_s / 8

    assert 0.0015 <= before - after <= 0.0025


def test_more_slots_give_more_tokens_for_the_same_weights() -> None:
    slot_counts = (16, 64, 128, 256, 512)
    rates = [8 * slots / costs().decode(slots, 8, slots, 512).total_s for slots in slot_counts]
    before = costs(with_projections_of_xla(H100))
    rates_before = [
        8 * slots / before.decode(slots, 8, slots, 512).total_s for slots in slot_counts
    ]

    assert rates == sorted(rates)
    assert rates_before[3] > 2.5 * rates_before[1]
    # three launches less of 2.4 us in each of 64 layers, a larger share of a short step
    for rate, rate_before, slots in zip(rates, rates_before, slot_counts, strict=True):
        saved_s = 8 * slots * (1 / rate_before - 1 / rate) / 8
        assert 0.0003 < saved_s < 0.0007, slots


def test_seconds_of_a_call_are_those_of_its_limits() -> None:
    cost = costs().decode(64, 8, 64, 512)

    assert set(cost.seconds) == set(LIMITS)
    assert cost.total_s == pytest.approx(sum(cost.seconds.values()))
    assert max(cost.seconds, key=lambda name: cost.seconds[name]) == "weights"
    assert (NO_COST + cost).total_s == cost.total_s
    assert (cost * 2).total_s == pytest.approx(2 * cost.total_s)


def test_large_prefill_is_limited_by_compute() -> None:
    seconds = costs().prefill(8192, 512).seconds

    assert max(seconds, key=lambda name: seconds[name]) == "compute"


def test_position_moves_times_between_lowest_and_highest_estimate() -> None:
    calls = [costs(position=position).decode(64, 8, 64, 512) for position in (0.0, 0.5, 1.0)]
    totals = [call.total_s for call in calls]

    assert totals[0] < totals[1] < totals[2]


def test_times_between_two_sizes_lie_between_theirs() -> None:
    sizes = (2048, 3000, 4096, 8192, 16384)
    totals = [costs().prefill(tokens, 512).total_s for tokens in sizes]

    assert totals == sorted(totals)


def test_faster_memory_shortens_decode_but_not_the_products_of_prefill() -> None:
    h200 = costs(load_profile("h200"))

    decode_ratio = (
        costs().decode(64, 8, 64, 512).seconds["weights"]
        / h200.decode(64, 8, 64, 512).seconds["weights"]
    )
    prefill_ratio = (
        costs().prefill(2048, 512).seconds["compute"] / h200.prefill(2048, 512).seconds["compute"]
    )

    assert decode_ratio == pytest.approx(4.8 / 3.352, rel=0.01)
    assert prefill_ratio == pytest.approx(1.0)


def test_half_as_many_devices_have_twice_the_weights_to_read() -> None:
    half = costs(shard=model_shard(GROK_1, 4))

    ratio = (
        half.decode(64, 8, 64, 512).seconds["weights"]
        / costs().decode(64, 8, 64, 512).seconds["weights"]
    )

    assert ratio == pytest.approx(2, rel=0.02)


def test_one_device_has_no_all_reduce() -> None:
    assert costs(shard=model_shard(GROK_1, 1)).prefill(2048, 512).seconds["links"] == 0


def test_measured_time_replaces_the_estimate() -> None:
    measured = KernelTime(
        "experts_out", 64, 300.0, 300.0, "measured", "command", date="2026-11-26", hardware="H100"
    )

    slower = costs(H100.with_times([measured])).decode(64, 1, 64, 512)

    assert slower.total_s > costs().decode(64, 1, 64, 512).total_s + 64 * 150e-6


def test_kernels_without_times_take_their_floor_at_the_profiles_efficiency() -> None:
    profile = load_profile("cpu")
    cpu = CallCosts(profile, model_shard(DEMO, 1), DEMO.num_layers)

    cost = cpu.prefill(2048, 128)

    assert cost.seconds["compute"] > 0
    assert cost.seconds["launches"] > 0
    assert cost.total_s < 1


def test_sampling_with_a_temperature_takes_longer() -> None:
    greedy = costs().decode(64, 8, 64, 512)
    sampled = costs().decode(64, 8, 64, 512, sorts=True)

    assert sampled.total_s > greedy.total_s


def test_score_call_grows_with_its_positions() -> None:
    assert costs().score(16).total_s < costs().score(256).total_s
