"""The repetition cut-off on a greedy loop of the demo model.

The completion ends at the token that completes the pattern; its slot goes to the next request.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from actors.engine.config import EngineConfig
from actors.engine.scheduling.call_sizes import MIN_ROWS
from actors.model.config import DEMO
from actors.protocol.messages import Batch, Completion, Request, RowRef, token_ids
from actors.protocol.sampling import Sampling
from actors.replica import Replica, ReplicaSpec
from pipeline.requests.tokenizer import Tokenizer
from tests.jobs.demo.demo_model import CHECKPOINT, asked, tokenizer

STEPS = 4  # tokens of one decode call
SIZES = EngineConfig(
    max_len=64,
    prefill_tokens=64,
    slots=1,
    page_size=8,
    decode_steps=STEPS,
    cache_tokens=256,
    logprobs=None,
)
# unlike anything the model was trained on: it says the same for ever, with the same weights the
# same
LOOP = "a b a b a b"


@pytest.fixture(scope="module")
def replica() -> Iterator[Replica]:
    """One with a single slot."""
    table = Tokenizer(tokenizer().serialized_model_proto()).token_bytes
    replica = Replica(ReplicaSpec(DEMO, str(CHECKPOINT), (1, 1), "float32", SIZES, table))
    yield replica
    replica.close()


def ask(row: int, prompt: str, max_tokens: int = 40, **sampling: Any) -> Request:
    return Request(
        RowRef(0, row), token_ids(tokenizer().encode(prompt)), Sampling(max_tokens, **sampling)
    )


def run(replica: Replica, *requests: Request) -> list[Completion]:
    return sorted(replica.run(Batch(requests)).completions, key=lambda completion: completion.ref)


def ends_at(tokens: list[int], max_pattern: int, min_count: int, min_tokens: int = 0) -> int:
    """Returns after how many tokens the rule ends a completion; all of them if it never does."""
    for end in range(max(1, min_tokens), len(tokens)):
        for size in range(1, max_pattern + 1):
            tail = tokens[max(0, end - size * min_count) : end]
            if tail == tail[:size] * min_count:
                return end
    return len(tokens)


# longest pattern, repetitions, least tokens
CASES = ((4, 6, 0), (4, 10, 0), (4, 6, 7), (4, 6, 9), (4, 33, 0), (4, 41, 0))


def test_expected_cut_off_matches_hand_worked_examples() -> None:
    assert [ends_at([1] * 8 + [2] * 32, *case) for case in CASES] == [6, 18, 7, 14, 40, 40]


@pytest.mark.slow
def test_loop_ends_with_its_pattern_and_frees_the_slot(replica: Replica) -> None:
    (whole,) = run(replica, ask(0, LOOP))
    tokens = whole.token_ids.tolist()
    assert whole.finish_reason == "length"
    assert ends_at(tokens, 4, 6) < ends_at(tokens, 4, 6, min_tokens=9) < 40, (
        "the model does not loop here"
    )
    for max_pattern, min_count, min_tokens in CASES:
        kind = {
            "repetition_max_pattern": max_pattern,
            "repetition_min_count": min_count,
            "min_tokens": min_tokens,
        }
        length = ends_at(tokens, max_pattern, min_count, min_tokens)
        question = asked(1)[0]
        before = replica.stats()
        cut, answered = run(replica, ask(0, LOOP, **kind), ask(1, question["prompt"]))
        after = replica.stats()
        assert cut.token_ids.tolist() == tokens[:length]
        assert (cut.finish_reason, cut.stop_reason) == (
            ("repetition" if length < 40 else "length"),
            None,
        )
        assert tokenizer().decode(answered.token_ids.tolist()) == question["answer"].strip()
        assert after.generated_tokens - before.generated_tokens == length + len(answered.token_ids)
        # with one slot, steps tell when it was free: at the end of the call in which the pattern
        # was complete
        steps = -(-length // STEPS) * STEPS + len(answered.token_ids)
        assert after.decode_positions - before.decode_positions == MIN_ROWS * steps


@pytest.mark.slow
def test_stop_precedes_loop_and_loop_precedes_max_tokens(replica: Replica) -> None:
    """All three at the same token."""
    (once,) = run(replica, ask(0, LOOP, 1))
    stop = tokenizer().id_to_piece(once.token_ids[0]).replace("\u2581", " ") * 6
    kind = {"repetition_max_pattern": 1, "repetition_min_count": 6}
    stopped, limited = run(replica, ask(0, LOOP, 6, stop=(stop,), **kind), ask(1, LOOP, 6, **kind))
    assert (stopped.finish_reason, stopped.stop_reason, len(stopped.token_ids)) == ("stop", stop, 6)
    assert (limited.finish_reason, limited.stop_reason, len(limited.token_ids)) == (
        "repetition",
        None,
        6,
    )
