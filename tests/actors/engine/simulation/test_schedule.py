from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from actors.engine.config import EngineConfig
from actors.engine.engine import Engine
from actors.engine.simulation.schedule import (
    CPU_POLICY,
    DecodeCall,
    PrefillCall,
    Schedule,
    simulate,
)
from actors.protocol.messages import ReplicaStats, Request
from tests.actors.engine.engines import generate, make_engine, run, score


def mixed_requests() -> list[Request]:
    """Returns requests of all kinds and lengths; half of them share a prefix."""
    random = np.random.default_rng(5)
    prefix = random.integers(3, 90, 24).tolist()
    requests: list[Request] = []
    for row in range(24):
        own = random.integers(3, 90, int(random.integers(1, 40))).tolist()
        prompt = prefix + own if row % 2 else own
        if row % 3 == 0:
            continuation = random.integers(3, 90, 5).tolist()
            requests.append(score(row, prompt, continuation, [*continuation[:-1], 7], [8]))
        else:
            max_tokens = int(random.integers(1, 20))
            requests.append(generate(row, prompt, max_tokens=max_tokens, ignore_eos=True))
    return requests


def simulate_engine(engine: Engine, requests: Sequence[Request]) -> Schedule:
    pool = engine.scheduler.pools[0]
    return simulate(
        engine.context.engine,
        [requests],
        pages=pool.pages,
        data_shards=engine.context.data_shards,
        policy=CPU_POLICY,
    )


def counters(schedule: Schedule) -> dict[str, int]:
    """Returns all counters but the positions of prefills.

    A call whose shape is not compiled yet runs in a larger one.
    """
    return {
        "requests": schedule.requests,
        "prompt_tokens": schedule.prompt_tokens,
        "cached_tokens": schedule.cached_tokens,
        "prefill_calls": len(schedule.prefill_calls),
        "prefill_tokens": schedule.prefill_tokens,
        "decode_calls": len(schedule.decode_calls),
        "decode_positions": schedule.decode_positions,
        "generated_tokens": schedule.generated_tokens,
    }


def engine_counters(stats: ReplicaStats, names: Sequence[str]) -> dict[str, int]:
    return {name: getattr(stats, name) for name in names}


@pytest.mark.parametrize(
    "sizes",
    [{}, {"cache_tokens": 160, "prompt_logprobs": 0}],
    ids=["enough pages", "few pages and prompt log-probs"],
)
def test_simulation_makes_the_calls_of_the_real_engine(sizes: dict[str, Any]) -> None:
    requests = mixed_requests()
    engine = make_engine(**sizes)

    simulated = counters(simulate_engine(engine, requests))
    run(engine, requests)

    assert simulated == engine_counters(engine.stats(), list(simulated))


def test_simulation_makes_the_calls_of_an_engine_with_two_data_shards() -> None:
    requests = mixed_requests()
    engine = make_engine(mesh=(2, 1), cache_tokens=384)

    simulated = counters(simulate_engine(engine, requests))
    run(engine, requests)

    assert simulated == engine_counters(engine.stats(), list(simulated))


def config(**sizes: int) -> EngineConfig:
    return EngineConfig(**({"max_len": 256, "prefill_tokens": 256, "slots": 8} | sizes))


def test_decode_call_ends_with_its_longest_sequence() -> None:
    requests = [generate(0, [3, 4, 5], max_tokens=3), generate(1, [6, 7, 8], max_tokens=5)]

    schedule = simulate(config(), [requests], pages=64)

    assert [call.steps for call in schedule.decode_calls] == [5]
    assert schedule.generated_tokens == 8
    assert schedule.idle_slot_share == 1 - 8 / (5 * 8)


def test_completions_end_when_the_caller_expects_them_to() -> None:
    requests = [generate(row, [3, 4, 5], max_tokens=100) for row in range(4)]

    schedule = simulate(
        config(), [requests], pages=64, completion_tokens=lambda request: request.ref.row + 1
    )

    assert schedule.generated_tokens == 1 + 2 + 3 + 4


def test_engine_holds_no_more_batches_than_are_in_flight() -> None:
    batches = [[generate(row, [3, 4, 5], max_tokens=8)] for row in range(8)]

    schedule = simulate(config(), batches, pages=64, batches_in_flight=2)

    assert [call.sequences for call in schedule.decode_calls] == [2, 2, 2, 2]
    assert schedule.idle_slot_share == 0.75


def test_context_of_calls_is_the_mean_of_visible_keys() -> None:
    requests = [generate(0, list(range(3, 3 + 33)), max_tokens=4)]

    schedule = simulate(config(), [requests], pages=64)

    (prefill,) = schedule.prefill_calls
    (decode,) = schedule.decode_calls
    assert isinstance(prefill, PrefillCall)
    assert isinstance(decode, DecodeCall)
    assert prefill.context == pytest.approx(np.mean(np.arange(1, 33)))
    assert decode.context == pytest.approx(32 + np.mean([1, 2, 3, 4]))


def test_shared_prefix_is_computed_once() -> None:
    prefix = list(range(3, 35))
    requests = [generate(row, [*prefix, 50 + row], max_tokens=2) for row in range(4)]

    schedule = simulate(config(), [requests], pages=64)

    assert schedule.cached_tokens == 3 * 32
    assert schedule.prefill_tokens == 32


def test_request_larger_than_the_cache_is_an_error() -> None:
    request = generate(0, list(range(3, 103)), max_tokens=8)

    with pytest.raises(ValueError, match="a request does not fit the cache"):
        simulate(config(), [[request]], pages=4)
