"""Calls that overlap: the next step is dispatched before the results of the last one are read."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.engine.engine import Engine
from actors.engine.simulation.schedule import CPU_POLICY, simulate
from actors.protocol.messages import Completion, Request, RowRef
from actors.protocol.sampling import Sampling
from tests.actors.engine.engines import generate, make_engine, run, score

EOS = 2
LETTERS = [bytes([97 + token % 26]) * 2 for token in range(512)]
PARAMETERS = (
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "bad_words",
    "allowed_token_ids",
    "stop_token_ids",
)
# Where the experts' kernel reads int8, the bits of a row do not depend on the rows of its calls.
# Few programs: one width of page tables, one number of prefill rows, short lists of ids.
ENGINE: dict[str, Any] = {
    "max_len": 64,
    "prefill_tokens": 64,
    "dense": False,
    "token_bytes": LETTERS,
    "sampling_parameters": PARAMETERS,
    "logprobs": 2,
    "is_optimized": True,
}
EARLY_EOS: dict[str, Any] = {"logit_bias": ((EOS, 6.0),)}
SAMPLINGS: tuple[dict[str, Any], ...] = (
    {},
    EARLY_EOS | {"temperature": 1.0},
    EARLY_EOS | {"temperature": 1.5, "min_tokens": 6},
    EARLY_EOS | {"temperature": 1.2, "ignore_eos": True},
    {"temperature": 2.0, "stop": ("a", "bb", "jjn"), "ignore_eos": True},
    {"temperature": 2.0, "stop": ("c", "d"), "min_tokens": 5, "ignore_eos": True},
    {"temperature": 3.0, "stop_token_ids": tuple(range(40, 160, 8)), "min_tokens": 3},
    {"repetition_penalty": 1.5, "ignore_eos": True},
    {"temperature": 1.0, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    {"temperature": 1.0, "bad_words": ((7,), (8, 9), (11, 12, 13, 14))},
    {"temperature": 1.0, "allowed_token_ids": (30, 31, 32), "bad_words": ((30, 31), (31, 31))},
    {"repetition_max_pattern": 3, "repetition_min_count": 2, "allowed_token_ids": (5, 6)},
    {"temperature": 0.9, "top_p": 0.8, "top_k": 40, "min_p": 0.01},
    # ends with an error where the second word masks the only token that is left
    {"allowed_token_ids": (60, 61), "bad_words": ((61,), (60, 60, 60))},
)


def workload() -> list[Request]:
    """Returns requests of all kinds; most share a prefix, and some are samples of one prompt."""
    random = np.random.default_rng(3)
    prefix = random.integers(3, 512, 20).tolist()
    requests: list[Request] = []
    for row in range(3 * len(SAMPLINGS)):
        own = random.integers(3, 512, int(random.integers(1, 12))).tolist()
        prompt = prefix[: int(random.integers(0, 21))] + own
        parameters = SAMPLINGS[row % len(SAMPLINGS)]
        max_tokens = int(random.integers(1, 20))
        requests.append(generate(row, prompt, max_tokens, seed=10**15 + row, **parameters))
        if row % 5 == 0:
            requests.append(score(100 + row, prompt, own, [7], [8]))
    for sample in range(4):
        sampling = Sampling(max_tokens=9, temperature=1.0, seed=sample, **EARLY_EOS)
        template = generate(200, prefix, 9)
        requests.append(replace(template, ref=RowRef(0, 200, sample, 4), sampling=sampling))
    return requests


def bits(completion: Completion) -> tuple[object, ...]:
    """Returns a completion without the prompt tokens that were found in the cache."""
    return (
        completion.ref,
        list(completion.token_ids),
        list(completion.token_logprobs or ()),
        list(completion.top_token_ids or ()),
        list(completion.top_logprobs or ()),
        completion.scores,
        completion.text_bytes,
        (completion.finish_reason, completion.stop_reason),
        completion.error_code,
    )


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        pytest.param(
            {"slots": 16, "decode_steps": 1, "cache_tokens": 192},
            marks=pytest.mark.slow,  # compiles
        ),
    ],
    ids=["8 slots", "16 slots, calls of one step, few pages"],
)
def test_overlapped_calls_give_the_bits_of_calls_in_turn(sizes: dict[str, Any]) -> None:
    requests = workload()
    in_turn = run(make_engine(**ENGINE, overlaps_calls=False), requests)
    reasons = {completion.finish_reason for completion in in_turn}
    assert reasons >= {"length", "stop", "repetition"}
    assert any(completion.error_code for completion in in_turn)

    overlapped = run(make_engine(**ENGINE, **sizes, overlaps_calls=True), requests)

    for one, other in zip(in_turn, overlapped, strict=True):
        assert bits(one) == bits(other)


@pytest.mark.slow  # compiles
def test_overlapped_calls_of_two_data_shards_equal_calls_in_turn() -> None:
    requests = workload()
    in_turn = run(make_engine(mesh=(2, 1), **ENGINE, overlaps_calls=False), requests)

    overlapped = run(make_engine(mesh=(2, 1), **ENGINE, overlaps_calls=True), requests)

    assert list(map(bits, overlapped)) == list(map(bits, in_turn))


def test_repeated_overlapped_run_makes_the_same_calls() -> None:
    requests = workload()
    first, second = (make_engine(**ENGINE, overlaps_calls=True) for _ in range(2))

    assert list(map(bits, run(first, requests))) == list(map(bits, run(second, requests)))

    assert calls(first) == calls(second)


def calls(engine: Engine) -> dict[str, int]:
    stats = engine.stats()
    names = ("prefill_calls", "prefill_tokens", "decode_calls", "generated_tokens", "cached_tokens")
    return {name: getattr(stats, name) for name in names}


def test_step_returns_before_its_own_results_are_read() -> None:
    engine = make_engine(overlaps_calls=True)
    engine.add(generate(0, [5, 6, 7], max_tokens=1, ignore_eos=True))

    assert engine.step() == []
    assert engine.scheduler.idle
    assert not engine.idle
    assert engine.stats().decode_calls == 0

    (completion,) = engine.step()
    assert completion.finish_reason == "length"
    assert engine.idle


def test_tokens_after_an_end_that_is_found_late_are_discarded() -> None:
    """The call after a stop string still generates for the sequence; its slot is free then."""
    prompts = [[5, 6, 7 + row] for row in range(3)]
    requests = [generate(row, prompt, 16, ignore_eos=True) for row, prompt in enumerate(prompts)]
    (letters,) = {len(piece) for piece in LETTERS}
    free = run(make_engine(token_bytes=LETTERS), requests)
    stops = [LETTERS[completion.token_ids[1]].decode() for completion in free]
    stopped = []
    for request, stop in zip(requests, stops, strict=True):
        assert request.sampling is not None
        sampling = replace(request.sampling, stop=(stop,), max_tokens=40)
        stopped.append(replace(request, sampling=sampling))

    engine = make_engine(token_bytes=LETTERS, slots=1, overlaps_calls=True)
    completions = run(engine, stopped)

    for completion, unstopped in zip(completions, free, strict=True):
        assert completion.finish_reason == "stop"
        count = len(completion.token_ids)
        assert count <= 2
        assert completion.token_ids == unstopped.token_ids[:count]
        assert completion.text_bytes == (count - 1) * letters
    stats = engine.stats()
    assert stats.generated_tokens == sum(len(done.token_ids) for done in completions)
    # for each request the call that ends it, and the one that was dispatched meanwhile
    assert stats.decode_calls == 2 * len(requests)


def test_requests_may_arrive_while_a_call_is_in_flight() -> None:
    requests = workload()
    expected = {done.ref: bits(done) for done in run(make_engine(**ENGINE), requests)}

    engine = make_engine(**ENGINE, overlaps_calls=True)
    waiting = list(requests)
    done: list[Completion] = []
    while waiting or not engine.idle:
        for request in waiting[:3]:
            engine.add(request)
        del waiting[:3]
        done += engine.step()

    assert {completion.ref: bits(completion) for completion in done} == expected


def test_simulation_makes_the_calls_of_an_engine_whose_calls_overlap() -> None:
    """Ends before max_tokens, too: they are found one step late."""
    random = np.random.default_rng(9)
    requests: list[Request] = []
    for row in range(24):
        prompt = random.integers(3, 512, int(random.integers(2, 30))).tolist()
        max_tokens = int(random.integers(4, 24))
        requests.append(generate(row, prompt, max_tokens, seed=row, temperature=1.0, **EARLY_EOS))
    engine = make_engine(**ENGINE, overlaps_calls=True)
    completions = run(engine, requests)
    lengths = {completion.ref: len(completion.token_ids) for completion in completions}
    assert {completion.finish_reason for completion in completions} == {"length", "stop"}

    schedule = simulate(
        engine.context.engine,
        [requests],
        pages=engine.scheduler.pools[0].pages,
        policy=replace(CPU_POLICY, overlaps_calls=True),
        completion_tokens=lambda request: lengths[request.ref],
    )

    assert calls(engine) == {
        "prefill_calls": len(schedule.prefill_calls),
        "prefill_tokens": schedule.prefill_tokens,
        "decode_calls": len(schedule.decode_calls),
        "generated_tokens": schedule.generated_tokens,
        "cached_tokens": schedule.cached_tokens,
    }
    assert engine.stats().decode_positions == schedule.decode_positions
