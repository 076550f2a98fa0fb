"""Processors in the engine: rows with and without them in one batch, against the NumPy model.

Fewer slots than rows: sequences join and leave between the calls.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from actors.protocol.messages import Completion
from actors.protocol.sampling import Sampling
from tests import reference
from tests.actors.engine.engines import (
    CONFORMANCE,
    generate,
    golden,
    make_engine,
    model_config,
    run,
)
from tests.sampling_reference import processed

MESHES = [(1, 1), (2, 4)]
MAX_TOKENS = 7
PROMPT = golden("mha")["p1_tokens"].tolist()[:12]
# Every row continues the same prompt, greedily; `free` is what the model does by itself.
PARAMETERS = (
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "allowed_token_ids",
    "bad_words",
    "stop_token_ids",
    "repetition_penalty",
)


@lru_cache
def weights() -> reference.Params:
    return reference.parameters(CONFORMANCE / "mha" / "ckpt-0", model_config("mha"))


def oracle(sampling: Sampling) -> tuple[list[int], list[float]]:
    """Returns greedy tokens and their log-probs under the model's own distribution."""
    tokens: list[int] = []
    logprobs: list[float] = []
    while len(tokens) < sampling.max_tokens:
        logits = reference.logits(weights(), model_config("mha"), [*PROMPT, *tokens])[-1]
        tokens.append(int(processed(logits, sampling, PROMPT, tokens).argmax()))
        logprobs.append(float(reference.log_probs(logits)[tokens[-1]]))
        if tokens[-1] in sampling.stop_token_ids:
            break
    return tokens, logprobs


@lru_cache
def rows() -> tuple[dict[str, Any], ...]:
    free, _ = oracle(Sampling(MAX_TOKENS))
    return (
        {},
        {"logit_bias": ((free[0], -50.0), (17, 100.0)), "presence_penalty": 2.0},
        {"logit_bias": ((19, 8.0), (23, 8.0)), "frequency_penalty": 2.0},
        {"allowed_token_ids": (40, 41, 42, 43)},
        {"bad_words": ((free[0], free[1]), (free[0], 9, 9), (free[3],))},
        {"stop_token_ids": (free[2],)},
        {"stop_token_ids": (free[1], free[2]), "min_tokens": 3},
        {"allowed_token_ids": (40, 41, 42), "presence_penalty": 2.0, "frequency_penalty": 1.0},
        {},
    )


@pytest.mark.parametrize("mesh", MESHES)
def test_mixed_batch_equals_the_numpy_model(mesh: tuple[int, int]) -> None:
    engine = make_engine("mha", mesh, slots=4, decode_steps=2, sampling_parameters=PARAMETERS)
    requests = []
    for number, values in enumerate(rows()):
        requests.append(generate(number, PROMPT, MAX_TOKENS, ignore_eos=True, **values))
    completions = run(engine, requests)
    for values, completion in zip(rows(), completions, strict=True):
        tokens, logprobs = oracle(Sampling(MAX_TOKENS, **values))
        assert completion.token_ids.tolist() == tokens, values
        np.testing.assert_allclose(completion.token_logprobs, logprobs, atol=1e-3)
    assert_ends(completions)
    free = completions[0].token_ids
    assert completions[8].token_ids == free
    assert sum(completion.token_ids == free for completion in completions) == 2


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_row_without_an_allowed_token_is_an_error_row(temperature: float) -> None:
    engine = make_engine("mha", (1, 1), slots=4, decode_steps=2, sampling_parameters=PARAMETERS)
    impossible = {"allowed_token_ids": (40,), "bad_words": ((40, 40),)}
    requests = [
        generate(0, PROMPT, MAX_TOKENS, temperature=temperature, ignore_eos=True, **impossible),
        generate(1, PROMPT, MAX_TOKENS, temperature=temperature, ignore_eos=True),
    ]
    failed, free = run(engine, requests)
    assert failed.error_code == "invalid_parameter"
    assert failed.error_message == (
        "allowed_token_ids, bad_words: expected at least one token that may be generated, but all "
        "tokens are masked at position 1 of the completion; allow more tokens"
    )
    assert (free.error_code, len(free.token_ids)) == (None, MAX_TOKENS)
    assert engine.idle


def assert_ends(completions: list[Completion]) -> None:
    free = completions[0].token_ids
    assert completions[0].finish_reason == "length"
    stopped = completions[5]
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", str(free[2]))
    assert stopped.token_ids == free[: free.index(free[2]) + 1]
    assert len(completions[6].token_ids) > 3
