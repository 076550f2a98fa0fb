"""The committed demo model, run by the engine, answers questions that it was not trained on.

A wrong mask, cache, prefix reuse or split over devices shows here as a wrong answer.
"""

import pytest

from actors.engine.config import EngineConfig
from actors.model.config import DEMO
from actors.protocol.messages import Batch, Completion, Request, RowRef, token_ids
from actors.protocol.sampling import Sampling
from actors.replica import Replica, ReplicaSpec
from tests.jobs.demo.demo_model import CHECKPOINT, asked, tokenizer

ROWS, WRONG_AT_MOST = 100, 5
COMPLETED, SCORED = 0, 1
SIZES = EngineConfig(
    max_len=64,
    prefill_tokens=64,
    slots=8,
    page_size=8,
    decode_steps=4,
    cache_tokens=2048,
    logprobs=None,
)


def requests() -> list[Request]:
    """Returns each question twice: to be completed, and to have its choices scored."""
    made = []
    for row, question in enumerate(asked(ROWS)):
        prompt = tokenizer().encode(question["prompt"])
        choices = [
            tokenizer().encode(question["prompt"] + choice)[len(prompt) :]
            for choice in question["choices"]
        ]
        made.append(Request(RowRef(COMPLETED, row), token_ids(prompt), Sampling(max_tokens=24)))
        made.append(
            Request(
                RowRef(SCORED, row), token_ids(prompt), continuations=tuple(map(token_ids, choices))
            )
        )
    return made


def right(completion: Completion) -> bool:
    """Whether the completion is the answer to the letter, or the likeliest choice is the answer."""
    question = asked(ROWS)[completion.ref.row]
    if completion.scores:
        values = [score.loglikelihood for score in completion.scores]
        return bool(question["choices"][values.index(max(values))] == question["answer"])
    prompt, whole = tokenizer().encode(
        [question["prompt"], question["prompt"] + question["answer"]]
    )
    return list(completion.token_ids) == [*whole[len(prompt) :], DEMO.eos_token]


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(1, 1), (1, 8)])
def test_completions_and_likeliest_choices_are_right(mesh: tuple[int, int]) -> None:
    replica = Replica(ReplicaSpec(DEMO, str(CHECKPOINT), mesh, "bfloat16", SIZES))
    try:
        found = replica.run(Batch(tuple(requests()))).completions
    finally:
        replica.close()
    for kind in (COMPLETED, SCORED):
        some = [each for each in found if each.ref.shard == kind]
        assert len(some) == ROWS
        wrong = [asked(ROWS)[each.ref.row]["prompt"] for each in some if not right(each)]
        assert len(wrong) <= WRONG_AT_MOST, wrong
