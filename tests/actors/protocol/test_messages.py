"""Messages: compact arrays, addresses in order, and the same after pickling."""

import pickle
from typing import Any

import numpy as np
import pytest

from actors.protocol.messages import (
    Batch,
    BatchResult,
    Completion,
    ReplicaInfo,
    ReplicaStats,
    Request,
    RowRef,
    Score,
    logprobs,
    token_ids,
)
from actors.protocol.sampling import Sampling

REF = RowRef(2, 40, 1, 3)
GENERATE = Request(REF, token_ids([5, 6, 7]), Sampling(4, temperature=0.5), row_id="a")
SCORE = Request(REF, token_ids([5]), continuations=(token_ids([1, 2]), token_ids([3])), row_id=9)
COMPLETION = Completion(
    REF,
    token_ids=token_ids([8, 2]),
    finish_reason="stop",
    stop_reason="eos",
    token_logprobs=logprobs([-0.5, -1.25]),
    scores=(Score(-1.5, True, 2),),
    seed=11,
)
INFO = ReplicaInfo("replica-0", "node-0", ("cpu",), "1x1", 10, 20, 30, 4, 0.5)


@pytest.mark.parametrize(
    "message",
    [
        GENERATE,
        SCORE,
        COMPLETION,
        Batch((GENERATE, SCORE), b"\x05\x00"),
        BatchResult((COMPLETION,), ReplicaStats(requests=1, busy_s=0.5)),
        INFO,
    ],
)
def test_message_survives_pickling(message: Any) -> None:
    assert pickle.loads(pickle.dumps(message)) == message


def test_token_ids_are_int32() -> None:
    ids = token_ids([0, 131071, 2**31 - 1])
    assert ids.itemsize == 4
    assert np.asarray(ids).dtype == np.int32
    assert ids.tolist() == [0, 131071, 2**31 - 1]


def test_token_ids_beyond_int32_raise() -> None:
    with pytest.raises(OverflowError):
        token_ids([2**31])


def test_logprobs_round_to_float32() -> None:
    values = logprobs([-0.1, float("-inf")])
    assert values.itemsize == 4
    assert values.tolist() == [float(np.float32(-0.1)), float("-inf")]


def test_pickled_ids_take_four_bytes_each() -> None:
    """A list would take up to five and an object each; prompts dominate the traffic."""
    request = Request(REF, token_ids([100_000] * 10_000), Sampling(1))
    assert len(pickle.dumps(request)) < 4 * 10_000 + 1_000


def test_row_refs_sort_by_shard_row_and_sample() -> None:
    refs = [RowRef(1, 0), RowRef(0, 9), RowRef(0, 2, 1, 2), RowRef(0, 2, 0, 2)]
    assert sorted(refs) == [RowRef(0, 2, 0, 2), RowRef(0, 2, 1, 2), RowRef(0, 9), RowRef(1, 0)]
    assert len({RowRef(0, 1), RowRef(0, 1), RowRef(0, 1, 1)}) == 2


def test_longest_of_a_completion_counts_max_tokens() -> None:
    assert GENERATE.longest == 3 + 4


def test_longest_of_a_score_counts_the_longest_continuation() -> None:
    assert SCORE.longest == 1 + 2


def test_failed_completion_has_an_error_and_no_answer() -> None:
    failed = Completion.failed(REF, "engine_crash", "the row kills its replica", 3, row_id="a")
    assert failed == Completion(
        REF,
        attempts=3,
        error_code="engine_crash",
        error_message="the row kills its replica",
        finish_reason="error",
        row_id="a",
    )
    assert not failed.token_ids
    assert failed.prompt_tokens is None


def test_completions_do_not_share_their_default_ids() -> None:
    first = Completion(RowRef(0, 0))
    second = Completion(RowRef(0, 1))
    first.token_ids.append(5)
    assert not second.token_ids
