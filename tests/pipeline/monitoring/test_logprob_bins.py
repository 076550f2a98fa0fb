"""Counts of log-probs: bins, their ends, and what is outside of them."""

import math

import pytest

from actors.protocol.messages import logprobs
from pipeline.monitoring.logprob_bins import BUFFERED_TOKENS, LogprobCounts


def test_histogram_counts_each_bin_with_its_upper_end() -> None:
    counts = LogprobCounts()
    counts.add(logprobs([0.0, -0.1, -0.25, -11.75]))
    assert counts.histogram() == [
        {"from": None, "to": -11.75, "tokens": 1},
        {"from": -0.5, "to": -0.25, "tokens": 1},
        {"from": -0.25, "to": 0.0, "tokens": 2},
    ]


def test_lowest_bin_holds_everything_below_and_nan_is_left_out() -> None:
    counts = LogprobCounts()
    counts.add(logprobs([-math.inf, -50.0, math.nan]))
    assert counts.histogram() == [{"from": None, "to": -11.75, "tokens": 2}]


@pytest.mark.parametrize("tokens", [BUFFERED_TOKENS - 1, BUFFERED_TOKENS, BUFFERED_TOKENS + 1])
def test_full_buffer_loses_no_token(tokens: int) -> None:
    counts = LogprobCounts()
    counts.add(logprobs([-1.0] * tokens))
    counts.add(logprobs([-1.0]))
    [length_bin] = counts.histogram()
    assert length_bin["tokens"] == tokens + 1
