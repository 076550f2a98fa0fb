"""Min-p, repetition penalty and repetition cut-off in the engine, and rejected parameters.

Rows alone and in batches are compared with the NumPy model.

One penalty or one loop must not be felt by any other row, and none may depend on slot, call, batch,
mesh or order.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from actors.engine.config import EngineConfig
from actors.engine.planning.abstract import decode_input
from actors.engine.steps import EngineContext
from actors.model.sharding import make_mesh
from actors.protocol.errors import InvalidParameterError
from actors.protocol.messages import Completion, Request, RowRef
from actors.protocol.sampling import SamplingParams
from pipeline.records import PromptRow
from pipeline.requests.rules import RequestRules
from pipeline.requests.tokenize import to_requests
from pipeline.tasks import GENERATE
from tests import reference
from tests.actors.engine.engines import (
    CONFORMANCE,
    generate,
    golden,
    make_engine,
    model_config,
    run,
)

MESHES = [(1, 1), (1, 8), (2, 4)]
PENALTIES = {"sampling_parameters": ("repetition_penalty",)}


def prompt(number: int) -> list[int]:
    return golden("mha")[f"p{number}_tokens"].tolist()[:30]


@pytest.fixture(scope="module")
def oracle() -> dict[tuple[int, float], tuple[list[int], list[float]]]:
    """Greedy completions by the NumPy model, by prompt and penalty.

    A token 0 and an EOS are among the tokens seen.
    """
    config = model_config("mha")
    params = reference.parameters(CONFORMANCE / "mha" / "ckpt-0", config)
    cases = [(number, penalty) for number in (1, 2) for penalty in (1.0, 1.3, 8.0, 0.5)]
    return {
        case: reference.generate(params, config, [*prompt(case[0]), 0, 2, 7], 9, case[1])
        for case in cases
    }


@pytest.mark.parametrize("mesh", MESHES)
def test_greedy_completions_with_a_penalty_equal_the_numpy_model(
    mesh: tuple[int, int], oracle: dict[tuple[int, float], tuple[list[int], list[float]]]
) -> None:
    """Side by side, with and without; log-probs are those of the model's own distribution."""
    requests = [
        generate(row, [*prompt(number), 0, 2, 7], 9, repetition_penalty=penalty)
        for row, (number, penalty) in enumerate(oracle)
    ]
    for completion, (tokens, logprobs) in zip(
        run(make_engine("mha", mesh, **PENALTIES), requests), oracle.values(), strict=True
    ):
        assert completion.token_ids.tolist() == tokens
        np.testing.assert_allclose(completion.token_logprobs, logprobs, atol=1e-3)
    assert len({tuple(tokens) for tokens, _ in oracle.values()}) == len(oracle), (
        "a penalty changes what is written"
    )
    assert len(set(oracle[1, 8.0][0])) == len(oracle[1, 8.0][0]), (
        "a token of this very call counts: nothing comes twice"
    )


def workload() -> list[Request]:
    rng = np.random.default_rng(11)
    shared = rng.integers(3, 512, 24).tolist()
    requests = []
    for row in range(12):
        tokens = [
            *shared[: int(rng.integers(0, 24))],
            *rng.integers(3, 512, int(rng.integers(1, 20))).tolist(),
        ]
        kind: dict[str, float] = {} if row % 3 == 0 else {"temperature": 1.2, "seed": 10**15 + row}
        kind |= {"repetition_penalty": 1.0 + row / 8} if row % 4 else {}
        kind |= {"min_p": 0.02 * row, "top_p": 0.9} if row % 3 == 2 else {}
        kind |= {"repetition_max_pattern": 3, "repetition_min_count": 2} if row % 2 else {}
        requests.append(generate(row, tokens, int(rng.integers(1, 16)), ignore_eos=True, **kind))
    return requests


def same(one: Completion, other: Completion) -> None:
    assert one.token_ids == other.token_ids
    assert one.finish_reason == other.finish_reason
    np.testing.assert_allclose(one.token_logprobs or [], other.token_logprobs or [], atol=1e-4)


def test_sampled_row_does_not_depend_on_batch_mesh_or_cache() -> None:
    requests = workload()
    together = run(make_engine(**PENALTIES), requests)
    assert {completion.finish_reason for completion in together} == {"length", "repetition"}
    one_slot = make_engine(slots=1, prefill_tokens=16, decode_steps=1, **PENALTIES)
    alone = [run(one_slot, [request])[0] for request in requests]
    tight = {"page_size": 4, "decode_steps": 7, "cache_tokens": 144, "reuse_prefixes": False}
    backwards = run(make_engine(**tight, **PENALTIES), requests[::-1])[::-1]
    data_shards = run(make_engine(mesh=(2, 4), **PENALTIES), requests)
    for others in (alone, backwards, data_shards):
        for one, other in zip(together, others, strict=True):
            same(one, other)


def test_penalty_support_does_not_change_other_completions() -> None:
    """Same tokens, as many programs, and nothing is handed to the device for it."""
    requests = [
        replace(request, sampling=replace(request.sampling, repetition_penalty=1.0))
        for request in workload()
        if request.sampling
    ]
    plain = make_engine(share_programs=False)
    able = make_engine(share_programs=False, **PENALTIES)
    for one, other in zip(run(plain, requests), run(able, requests), strict=True):
        same(one, other)
    assert plain.stats().programs == able.stats().programs
    inputs = {}
    for may in (False, True):
        config = EngineConfig(
            max_len=64, sampling_parameters=("repetition_penalty",) if may else ()
        )
        context = EngineContext(model_config("mha"), config, jnp.dtype("float32"), make_mesh(1, 1))
        inputs[may] = len(decode_input(context, 8, 4).layout.fields)
    assert inputs == {False: 12, True: 13}


def test_engine_without_penalty_support_refuses_penalties() -> None:
    engine = make_engine()
    with pytest.raises(InvalidParameterError, match=r"repetition_penalty: expected 1.0, got 1\.2"):
        engine.add(generate(0, [5], 4, repetition_penalty=1.2))
    with pytest.raises(InvalidParameterError, match="comes at least twice"):
        engine.add(generate(0, [5], 4, repetition_max_pattern=4, repetition_min_count=1))
    assert engine.idle


def test_min_p_1_is_greedy_at_any_temperature() -> None:
    engine = make_engine()
    sampled, greedy = run(
        engine,
        [
            generate(0, prompt(1), 8, temperature=3.0, seed=4, min_p=1.0, ignore_eos=True),
            generate(1, prompt(1), 8, ignore_eos=True),
        ],
    )
    assert sampled.token_ids == greedy.token_ids


@pytest.mark.parametrize(("length", "tail"), [(33, 0), (40, 7)])
def test_samples_share_a_prompt_and_have_their_own_seeds(length: int, tail: int) -> None:
    """From the row to the counters, n = 4: whole pages of 8 tokens are shared.

    What does not fill a page each sample computes.
    """
    ids = np.random.default_rng(length).integers(3, 512, length).tolist()
    rules = RequestRules(
        512,
        96,
        defaults=SamplingParams(max_tokens=8, temperature=1.0, n=4, ignore_eos=True),
    )
    row = PromptRow(RowRef(0, 0), "a", prompt_token_ids=ids, parameters={"min_p": 0.01})
    requests = [
        each for each in to_requests([row], GENERATE, None, rules) if isinstance(each, Request)
    ]
    engine = make_engine()
    done = run(engine, requests)
    stats = engine.stats()
    assert [completion.cached_tokens for completion in done] == [0, 32, 32, 32]
    assert (stats.prefill_tokens, stats.cached_tokens) == (length - 1 + 3 * tail, 3 * 32)
    assert stats.prompt_tokens == 4 * length
    assert (
        len({completion.seed for completion in done})
        == len({tuple(completion.token_ids) for completion in done})
        == 4
    )
