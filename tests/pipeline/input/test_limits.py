"""Limits of rows."""

import numpy as np

from pipeline.input.limits import (
    MAX_CHOICES,
    MAX_CHOICES_BYTES,
    MAX_RANGE_BYTES,
    MAX_VALUE_BYTES,
    RangeLimits,
    choices_fault,
)


def test_value_beyond_the_limit_fails_its_row_alone() -> None:
    limits = RangeLimits()
    sizes = {"a": np.array([1, MAX_VALUE_BYTES + 1, MAX_VALUE_BYTES]), "b": np.array([1, 1, 1])}
    faults = limits.check(sizes, 3)
    assert faults.keys() == {1}
    assert "column 'a' has a value of 67,108,865 bytes" in faults[1]


def test_rows_beyond_the_limit_of_their_shard_fail() -> None:
    limits = RangeLimits()
    count = MAX_RANGE_BYTES // MAX_VALUE_BYTES
    row = {"a": np.array([MAX_VALUE_BYTES])}
    for _ in range(count):
        assert limits.check(row, 1) == {}
    faults = limits.check({"a": np.array([0, 1])}, 2)
    assert faults.keys() == {1}
    assert "smaller --shard-rows" in faults[1]


def test_limits_of_no_rows_are_not_reached() -> None:
    assert RangeLimits().check({}, 0) == {}


def test_choices_count_with_the_prompt_once_for_each() -> None:
    assert choices_fault("prompt", ["a"] * MAX_CHOICES) is None
    assert choices_fault("prompt", None) is None
    assert "at most 1,024, got 1,025" in str(choices_fault("p", ["a"] * (MAX_CHOICES + 1)))
    prompt = "p" * (MAX_CHOICES_BYTES // 2)
    assert choices_fault(prompt, ["a"]) is None
    assert "with the prompt once for each" in str(choices_fault(prompt, ["a", "b"]))
