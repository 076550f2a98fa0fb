from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engine.config import EngineConfig
from actors.engine.scheduling.call_order import Backlog, decode_waits, prefill_waits
from actors.engine.simulation.schedule import CPU_POLICY, DecodeCall, PrefillCall, simulate
from tests.actors.engine.engines import generate

FULL = Backlog(
    prefill_tokens=100,
    prefill_generates=True,
    prefill_can_run=True,
    slots_used=100,
    decoding=90,
    decode_can_run=True,
)


def test_prefill_of_few_tokens_waits_while_slots_are_in_use() -> None:
    assert prefill_waits(FULL, call_tokens=1000)


@pytest.mark.parametrize(
    "changes",
    [
        {"prefill_tokens": 1000},
        {"decoding": 75},
        {"decode_can_run": False},
        {"prefill_generates": False},
    ],
)
def test_prefill_runs_when_it_is_full_or_slots_are_idle(changes: dict[str, int]) -> None:
    assert not prefill_waits(replace(FULL, **changes), call_tokens=1000)


def test_decode_waits_while_prefill_can_fill_its_slots() -> None:
    backlog = replace(FULL, decoding=50)

    assert decode_waits(backlog, call_tokens=1000)
    assert not decode_waits(replace(backlog, prefill_can_run=False), 1000)
    assert not decode_waits(replace(backlog, prefill_generates=False), 1000)
    assert not decode_waits(replace(backlog, decoding=90), 1000)


@given(
    backlog=st.builds(
        Backlog,
        prefill_tokens=st.integers(0, 200),
        prefill_generates=st.booleans(),
        prefill_can_run=st.booleans(),
        slots_used=st.integers(0, 64),
        decoding=st.integers(0, 64),
        decode_can_run=st.booleans(),
    ),
    call_tokens=st.integers(1, 200),
)
def test_prefill_and_decode_never_both_wait(backlog: Backlog, call_tokens: int) -> None:
    waits_for_slots = decode_waits(backlog, call_tokens)

    assert not (waits_for_slots and prefill_waits(backlog, call_tokens))
    assert not waits_for_slots or backlog.prefill_can_run


def test_gpu_slots_are_filled_before_the_first_decode() -> None:
    config = EngineConfig(max_len=256, prefill_tokens=256, slots=32)
    requests = [generate(row, [row + 3] * 65, max_tokens=8) for row in range(64)]

    schedule = simulate(config, [requests], pages=2000)

    (first_decode, *_) = schedule.decode_calls
    calls_before = schedule.calls.index(first_decode)
    assert first_decode.sequences >= 29
    assert all(isinstance(call, PrefillCall) for call in schedule.calls[:calls_before])


def test_cpu_engines_alternate_prefill_and_decode() -> None:
    config = EngineConfig(max_len=256, prefill_tokens=256, slots=32)
    requests = [generate(row, [row + 3] * 65, max_tokens=8) for row in range(16)]

    schedule = simulate(config, [requests], pages=2000, policy=CPU_POLICY)

    kinds = [type(call) for call in schedule.calls]
    assert kinds[:4] == [PrefillCall, DecodeCall, PrefillCall, DecodeCall]


def test_gpu_prefill_calls_of_short_prompts_are_mostly_full() -> None:
    """Calls of the few sequences that replace ended ones would be padded fourfold."""
    random = np.random.default_rng(0)
    requests = []
    for row in range(512):
        prompt = random.integers(3, 500, 100).tolist()
        requests.append(generate(row, prompt, max_tokens=int(random.integers(20, 180))))
    config = EngineConfig(max_len=1024, prefill_tokens=4096, slots=128)

    schedule = simulate(config, [requests], pages=20_000)

    filled = schedule.prefill_tokens / schedule.prefill_positions
    assert filled > 0.6
    assert schedule.idle_slot_share < 0.35
