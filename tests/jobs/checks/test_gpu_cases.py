"""gpu_cases.py: the arguments of the cases are those that an engine would pass."""

import jax
import jax.numpy as jnp
import pytest

from actors.engine.planning.device_profiles import KERNELS
from jobs.checks.gpu_cases import (
    GROK_1_SHARD,
    PREFILL_TOKENS,
    TINY,
    _decode_placement,
    _prefill_placement,
    cases,
)


def test_sizes_are_those_of_the_cost_model() -> None:
    # decode at up to 512 slots, and prefill calls of up to 8,192 tokens
    assert {64, 128, 256, 512, 2048, 4096, 8192} <= set(GROK_1_SHARD.tokens)
    assert {kernel for kernel in (case.kernel for case in cases(TINY)) if kernel in KERNELS} == {
        "routing",
        "attention_decode",
        "attention_prefill",
        "attention_inputs",
        "attention_output",
        "norms",
        "vocabulary",
        "sampling_sorted",
    }


def test_cases_begin_with_a_small_array() -> None:
    for case in cases(TINY):
        leaves = jax.tree.leaves(case.arguments)
        assert leaves[0].size <= TINY.shard.width * case.tokens, case.name


def test_decode_sees_the_mean_context() -> None:
    placement = _decode_placement(64, 512)

    assert placement.positions_BT.shape == (64, 1)
    assert float(placement.length_B.mean()) == pytest.approx(512, rel=0.01)
    pages = placement.pages_BJ.ravel().tolist()
    assert len(set(pages)) == len(pages)


def test_rows_of_a_prompt_share_pages_and_follow_each_other() -> None:
    placement = _prefill_placement(64, 512)

    assert placement.positions_BT.shape == (64, PREFILL_TOKENS)
    assert float(placement.positions_BT.mean()) == pytest.approx(512, rel=0.01)
    first, second = placement.positions_BT[:2]
    assert int(second[0]) == int(first[-1]) + 1
    assert jnp.array_equal(placement.pages_BJ[0], placement.pages_BJ[31])
    assert not jnp.array_equal(placement.pages_BJ[0], placement.pages_BJ[32])
    assert int(jnp.max(placement.length_B)) <= placement.live_BS.shape[1]
