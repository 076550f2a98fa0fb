from dataclasses import replace

import pytest

from actors.engine.planning.device_profiles import load_profile
from actors.engine.simulation.call_costs import LIMITS, CallCosts
from actors.engine.simulation.floors import model_shard
from actors.engine.simulation.run_times import Device, call_speeds, run_times
from actors.engine.simulation.schedule import DecodeCall, PrefillCall, Schedule
from actors.model.config import GROK_1

DEVICE = Device(load_profile("h100"), GROK_1, 8)
FULL = DecodeCall(rows=64, sequences=64, steps=8, context=512.0, tokens=512, sorts=False)
PREFILL = PrefillCall(positions=2048, tokens=2048, context=512.0, score_calls=())


def schedule(*calls: PrefillCall | DecodeCall) -> Schedule:
    return Schedule(
        calls=calls, requests=64, prompt_tokens=2048, cached_tokens=0, data_shards=1, slots=64
    )


def test_times_are_the_sums_of_the_calls() -> None:
    costs = CallCosts(DEVICE.profile, model_shard(GROK_1, 8), GROK_1.num_layers)

    times = run_times(schedule(PREFILL, FULL, FULL), DEVICE)

    assert times.prefill_s == pytest.approx(costs.prefill(2048, 512).total_s)
    assert times.decode_s == pytest.approx(2 * costs.decode(64, 8, 64, 512).total_s)
    assert times.total_s == pytest.approx(times.prefill_s + times.decode_s)
    assert sum(times.limits.values()) == pytest.approx(times.total_s)
    assert set(times.limits) == set(LIMITS)


def test_decode_at_64_slots_uses_half_of_the_bandwidth() -> None:
    """The floor of a step of 64 layers is 12.4 ms."""
    times = run_times(schedule(FULL), DEVICE)

    assert times.roof_s / 8 == pytest.approx(12.4e-3, rel=0.03)
    assert times.mbu == pytest.approx(times.roof_s / times.decode_s, rel=0.01)
    assert 0.5 < times.mbu < 0.6
    assert times.mfu == 0


def test_prefill_of_2048_tokens_uses_a_third_of_the_peak() -> None:
    """43.4 ms of useful operations at the peak."""
    times = run_times(schedule(PREFILL), DEVICE)

    assert times.roof_s == pytest.approx(43.4e-3, rel=0.05)
    assert 0.29 < times.mfu < 0.35
    assert times.mbu == 0


def test_tail_has_the_last_calls_with_less_than_half_of_the_slots() -> None:
    few = replace(FULL, rows=16, sequences=10, tokens=80)

    times = run_times(schedule(FULL, few, FULL, few, few), DEVICE)

    assert times.tail_s == pytest.approx(2 * run_times(schedule(few), DEVICE).decode_s)
    assert run_times(schedule(FULL), DEVICE).tail_s == 0


def test_score_calls_count_as_prefill() -> None:
    scoring = replace(PREFILL, score_calls=(256, 64))

    plain = run_times(schedule(PREFILL), DEVICE)

    assert run_times(schedule(scoring), DEVICE).prefill_s > plain.prefill_s


def test_speeds_are_those_of_calls_that_are_full() -> None:
    half = replace(FULL, sequences=32, tokens=256)
    calls = schedule(PREFILL, PREFILL, half, PREFILL, FULL)

    speeds = call_speeds(calls, DEVICE)

    prefill_s = run_times(schedule(PREFILL), DEVICE).prefill_s
    decode_s = run_times(schedule(FULL), DEVICE).decode_s
    assert speeds.prefill_tokens_per_s == pytest.approx(2048 / prefill_s)
    assert speeds.decode_tokens_per_s == pytest.approx(64 * 8 / decode_s)
    assert speeds.longest_call_s == pytest.approx(max(prefill_s, decode_s))
    assert speeds.longest_prefill_s == pytest.approx(2 * prefill_s)


def test_speeds_without_calls_are_zero() -> None:
    speeds = call_speeds(schedule(), DEVICE)

    assert speeds.prefill_tokens_per_s == speeds.decode_tokens_per_s == 0
    assert speeds.longest_call_s == speeds.longest_prefill_s == 0


def test_eight_h100_decode_8000_tokens_per_s_with_256_slots() -> None:
    """At context 512; at 1,000 it is one in a hundred less."""
    full = replace(FULL, rows=256, sequences=256, steps=2, tokens=512)
    longer = replace(full, context=1000.0)
    calls = replace(schedule(full), slots=256, overlaps_calls=True)
    calls_of_longer = replace(schedule(longer), slots=256, overlaps_calls=True)

    assert call_speeds(calls, DEVICE).decode_tokens_per_s >= 8000
    assert call_speeds(calls_of_longer, DEVICE).decode_tokens_per_s >= 7900
