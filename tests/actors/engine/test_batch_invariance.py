"""On CPUs the log-probs of a row have the same bits whatever runs beside it or ran before it."""

from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from actors.engine.compilation import ProgramShape
from actors.engine.config import EngineConfig
from actors.engine.engine import Engine
from actors.engine.steps import EngineContext
from actors.kernels.choice import select_platform
from actors.model import sharding
from actors.protocol.messages import Completion
from actors.weights import checkpoint
from tests.actors.engine.engines import CONFORMANCE, embed, generate, model_config, run

CASE = "mha"
ROWS = 64
PROMPT_TOKENS = 17  # two full chunks are prefilled, the last token is decoded


@lru_cache
def served_params(dtype: str, weights: str) -> Any:
    """Returns mesh and parameters in the layout that a replica on this machine computes with."""
    mesh = sharding.make_mesh(1, 1)
    platform = select_platform("cpu")
    loaded = checkpoint.load(str(CONFORMANCE / CASE / "ckpt-0"), model_config(CASE), mesh)
    dense = platform.is_dense(weights)
    return mesh, platform.prepare(loaded, jnp.dtype(dtype), dense=dense)


def make_engine(dtype: str, weights: str, **sizes: Any) -> Engine:
    mesh, params = served_params(dtype, weights)
    fixed = {"max_len": 64, "page_size": 8, "decode_steps": 4, "prompt_logprobs": 0}
    config = EngineConfig(**(fixed | sizes))
    return Engine(EngineContext(model_config(CASE), config, jnp.dtype(dtype), mesh), params)


def prompts() -> list[list[int]]:
    """Returns prompts of one length, half of which begin with the same two pages of tokens."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, model_config(CASE).vocab_size, (ROWS, PROMPT_TOKENS))
    tokens[::2, :16] = tokens[0, :16]
    result: list[list[int]] = tokens.tolist()
    return result


def bits(completion: Completion) -> tuple[bytes, bytes, bytes]:
    assert completion.token_logprobs is not None
    assert completion.prompt_logprobs is not None
    prompt = np.asarray(completion.prompt_logprobs, np.float32).tobytes()
    generated = np.asarray(completion.token_logprobs, np.float32).tobytes()
    return prompt, generated, np.asarray(completion.token_ids).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_have_equal_bits_in_large_and_small_calls(dtype: str) -> None:
    """Calls of 128 prefill and 64 decode rows against calls of 8, in another order.

    The small calls find half of the prefixes in the cache, as a replica does that replaces one
    which was killed.
    """
    requests = []
    for row, prompt in enumerate(prompts()):
        requests.append(generate(row, prompt, 6, ignore_eos=True, temperature=float(row % 2)))
    large = make_engine(dtype, "auto", slots=ROWS, prefill_tokens=1024, reuse_prefixes=False)
    together = run(large, requests)

    for slots in (8, 1):
        small = make_engine(dtype, "auto", slots=slots, prefill_tokens=64)
        some_rows = range(ROWS - 1, -1, -5 if slots > 1 else -20)
        others = run(small, [requests[row] for row in some_rows])
        for row, completion in zip(some_rows, others, strict=True):
            assert bits(completion) == bits(together[row]), f"row {row} in calls of {slots} slots"
        assert slots == 1 or small.stats().cached_tokens > 0


def test_rows_have_equal_bits_in_padded_calls() -> None:
    """Calls take larger shapes that are compiled: more rows, and wider page tables."""
    sizes = {"slots": 16, "prefill_tokens": 128, "reuse_prefixes": False}
    exact = make_engine("float32", "auto", max_len=256, **sizes)
    padded = make_engine("float32", "auto", max_len=256, **sizes)
    for shape in (ProgramShape("prefill", 16, 32), ProgramShape("decode", 16, 32)):
        padded.programs.prepare(shape)

    for row, prompt in enumerate((prompts()[0], list(range(3, 80)))):
        request = generate(row, prompt, 20, ignore_eos=True)
        expected = run(exact, [request])[0]
        assert bits(run(padded, [request])[0]) == bits(expected), f"row {row}"
    assert padded.stats().decode_positions > exact.stats().decode_positions


@pytest.mark.slow  # compiles
def test_rows_have_equal_bits_for_8_to_512_slots() -> None:
    """All rows of an engine decode in calls of that many rows."""
    prompts_512 = np.random.default_rng(1).integers(3, model_config(CASE).vocab_size, (512, 9))
    requests = []
    for row, prompt in enumerate(prompts_512.tolist()):
        requests.append(generate(row, prompt, 3, ignore_eos=True, temperature=float(row % 2)))

    expected = [bits(done) for done in run(engine_of_slots(512), requests)]
    for slots in (8, 64, 256):
        engine = engine_of_slots(slots)
        rows = requests[: min(512, 8 * slots)]
        assert [bits(done) for done in run(engine, rows)] == expected[: len(rows)], slots
        assert engine.stats().decode_positions == len(rows) * 3


def engine_of_slots(slots: int) -> Engine:
    """Returns an engine whose prefill calls have one row of 8 tokens for each slot."""
    return make_engine(
        "float32", "auto", slots=slots, prefill_tokens=8 * slots, cache_tokens=16 * slots + 64
    )


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_embeddings_have_equal_bits_alone_beside_others_and_reused(pooling: str) -> None:
    rows = [*prompts()[:5], prompts()[0][:16], prompts()[0][:9]]
    requests = [embed(row, ids) for row, ids in enumerate(rows)]
    together = run(make_engine("float32", "auto", prompt_logprobs=None, pooling=pooling), requests)
    assert [completion.cached_tokens for completion in together] == [0, 0, 16, 0, 16, 8, 8]

    one_engine = make_engine("float32", "auto", prompt_logprobs=None, pooling=pooling)
    for request, completion in zip(requests, together, strict=True):
        alone = run(one_engine, [request])[0]
        again = run(one_engine, [request])[0]
        assert alone.embedding == completion.embedding == again.embedding
