"""EngineConfig: what contradicts itself is refused by name and value."""

import pickle
import re
from typing import Any

import pytest

from actors.engine.config import EngineConfig
from actors.protocol.errors import ModelError


@pytest.mark.parametrize(
    "name", ["max_len", "prefill_tokens", "chunk", "slots", "page_size", "decode_steps"]
)
@pytest.mark.parametrize("value", [0, -1])
def test_config_of_a_size_below_1_raises(name: str, value: int) -> None:
    sizes: dict[str, Any] = {"max_len": 64, name: value}
    with pytest.raises(ModelError, match=f"engine: {name} must be at least 1, got {value}"):
        EngineConfig(**sizes)


@pytest.mark.parametrize("name", ["logprobs", "prompt_logprobs", "score_logprobs"])
def test_config_of_negative_logprobs_raises(name: str) -> None:
    counts: dict[str, Any] = {name: -1}
    with pytest.raises(ModelError, match=f"engine: {name} must be 0 or more, got -1"):
        EngineConfig(64, **counts)


@pytest.mark.parametrize("count", [None, 0, 5])
def test_config_accepts_logprobs_from_none_up(count: int | None) -> None:
    config = EngineConfig(64, logprobs=count, prompt_logprobs=count)
    assert (config.logprobs, config.prompt_logprobs) == (count, count)


@pytest.mark.parametrize(
    ("prompt", "scored", "top"), [(None, None, 0), (2, None, 2), (None, 3, 3), (2, 3, 3)]
)
def test_config_reports_enough_tokens_for_prompts_and_scores(
    prompt: int | None, scored: int | None, top: int
) -> None:
    config = EngineConfig(64, prompt_logprobs=prompt, score_logprobs=scored)
    assert config.target_logprobs == top


def test_config_of_a_cache_below_max_len_raises() -> None:
    message = "a cache of 63 tokens cannot hold one sequence of max_len 64; lower max_len or raise"
    with pytest.raises(ModelError, match=re.escape(message)):
        EngineConfig(64, cache_tokens=63)


def test_config_accepts_a_cache_of_one_sequence() -> None:
    assert EngineConfig(64, cache_tokens=64).cache_tokens == 64


def test_config_with_all_sizes_1_is_valid() -> None:
    config = EngineConfig(1, prefill_tokens=1, chunk=1, slots=1, page_size=1, decode_steps=1)
    assert config.max_len == 1


def test_config_survives_pickling_and_is_hashable() -> None:
    """The driver ships it to replicas; compiled programs are cached by it."""
    config = EngineConfig(64, sampling_parameters=("logit_bias",))
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config
    assert hash(copy) == hash(config)


@pytest.mark.parametrize(
    ("slots", "data_shards", "expected"), [(64, 1, 64), (64, 3, 21), (2, 4, 1)]
)
def test_slots_are_split_over_data_shards(slots: int, data_shards: int, expected: int) -> None:
    assert EngineConfig(max_len=64, slots=slots).shard_slots(data_shards) == expected
