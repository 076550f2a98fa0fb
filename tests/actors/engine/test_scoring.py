"""Score requests → sequences with targets → scores, filled in by hand. No JAX."""

from dataclasses import replace

import numpy as np
import pytest

from actors.engine.scheduling.sequence import Targets
from actors.engine.scoring import (
    Reading,
    prompt_targets,
    score_completion,
    score_sequences,
    with_prompt_logprobs,
)
from actors.protocol.messages import Boundary, Completion, Request, RowRef, token_ids

PROMPT = [10, 11, 12]


def request_of(*continuations: list[int]) -> Request:
    arrays = tuple(token_ids(ids) for ids in continuations)
    return Request(RowRef(0, 5), token_ids(PROMPT), continuations=arrays)


def logprob_of(tokens: list[int], position: int, target: int) -> float:
    """Returns a number that depends on the context of a target: a model of a sort."""
    context = sum((index + 1) * token for index, token in enumerate(tokens[: position + 1]))
    return -((context * 31 + target * 7) % 64) / 8


def is_greedy_of(target: int) -> bool:
    return target % 2 == 0


def compute(readings: list[Reading]) -> None:
    """Fills the targets of all sequences as an engine does."""
    sequences = {id(reading.sequence): reading.sequence for reading in readings}
    for sequence in sequences.values():
        targets = sequence.targets
        tokens = sequence.tokens.tolist()
        values: list[float] = []
        greedy: list[bool] = []
        for position, target in zip(targets.positions, targets.tokens, strict=True):
            values.append(logprob_of(tokens, int(position), int(target)))
            greedy.append(is_greedy_of(int(target)))
        ids = np.repeat(targets.tokens[:, None], 3, axis=1) + np.arange(3, dtype=np.int32)
        top = np.repeat(np.asarray(values, np.float32)[:, None], 3, axis=1)
        index = np.arange(len(values))
        targets.fill(index, np.asarray(values, np.float32), np.asarray(greedy), ids, top)


def completed(
    request: Request,
    readings: list[Reading],
    cached_tokens: int = 0,
    prompt_top_k: int | None = None,
    score_top_k: int | None = None,
) -> Completion:
    """Returns the completion of a request whose targets are filled."""
    return score_completion(
        request, readings, cached_tokens, prompt_top_k=prompt_top_k, score_top_k=score_top_k
    )


def expected_logprobs(continuation: list[int]) -> list[float]:
    tokens = [*PROMPT, *continuation]
    return [
        logprob_of(tokens, len(PROMPT) - 1 + number, target)
        for number, target in enumerate(continuation)
    ]


@pytest.mark.parametrize("with_prompt", [False, True])
def test_scores_equal_sums_over_each_continuation(with_prompt: bool) -> None:
    continuations = [[7], [4, 6, 8], [9], [4, 6, 3], [5, 5], [2]]
    request = request_of(*continuations)
    _, readings = score_sequences(request, with_prompt=with_prompt)
    compute(readings)
    completion = completed(request, readings, cached_tokens=2)
    for continuation, score in zip(continuations, completion.scores, strict=True):
        assert score.loglikelihood == sum(expected_logprobs(continuation))
        assert score.is_greedy == all(is_greedy_of(target) for target in continuation)
        assert score.tokens == len(continuation)
    assert completion.ref == request.ref
    assert (completion.prompt_tokens, completion.cached_tokens) == (3, 2)
    assert completion.prompt_logprobs is None


def test_scores_leave_out_context_tokens_of_a_continuation() -> None:
    request = replace(
        request_of([7, 4, 6], [4, 6], [5]),
        boundaries=(Boundary(2, context_chars=3), Boundary(1), Boundary()),
    )
    _, readings = score_sequences(request, with_prompt=True)
    compute(readings)
    scores = completed(request, readings).scores
    assert [score.tokens for score in scores] == [1, 1, 1]
    assert [score.boundary_chars for score in scores] == [3, 0, 0]
    assert scores[0].loglikelihood == expected_logprobs([7, 4, 6])[-1]
    assert scores[1].loglikelihood == expected_logprobs([4, 6])[-1]
    assert scores[2].loglikelihood == expected_logprobs([5])[-1]


@pytest.mark.parametrize("with_prompt", [False, True])
def test_scored_tokens_are_those_behind_the_boundary(with_prompt: bool) -> None:
    continuations = [[7, 4, 6], [7, 4, 9], [5]]
    boundaries = (Boundary(2, context_chars=3), Boundary(1), Boundary())
    request = replace(request_of(*continuations), boundaries=boundaries)
    _, readings = score_sequences(request, with_prompt=with_prompt)
    compute(readings)
    completion = completed(request, readings, score_top_k=2)
    assert completion.prompt_logprobs is None
    for ids, boundary, score in zip(continuations, boundaries, completion.scores, strict=True):
        scored = ids[boundary.context_tokens :]
        expected = expected_logprobs(ids)[boundary.context_tokens :]
        assert score.token_ids == token_ids(scored)
        assert score.token_logprobs is not None
        assert score.token_logprobs.tolist() == expected
        assert score.loglikelihood == sum(expected)
        top_ids = [token + rank for token in scored for rank in range(2)]
        assert score.top_token_ids == token_ids(top_ids)
        assert score.top_logprobs is not None
        assert score.top_logprobs.tolist() == list(np.repeat(expected, 2))


def test_scored_tokens_of_top_0_have_no_top_tokens() -> None:
    request = request_of([4, 6])
    _, readings = score_sequences(request, with_prompt=True)
    compute(readings)
    (score,) = completed(request, readings, prompt_top_k=1, score_top_k=0).scores
    assert score.token_ids == token_ids([4, 6])
    assert score.top_token_ids is None
    assert score.top_logprobs is None
    (without,) = completed(request, readings).scores
    assert without.token_ids is None
    assert without.token_logprobs is None


def test_one_token_continuations_share_a_sequence_of_the_prompt() -> None:
    sequences, readings = score_sequences(request_of([7], [8], [9]), with_prompt=False)
    (sequence,) = sequences
    assert sequence.tokens.tolist() == PROMPT
    assert sequence.prefill_length == 3
    assert sequence.targets.positions.tolist() == [2, 2, 2]
    assert [sequence.targets.tokens[r.index].tolist() for r in readings] == [[7], [8], [9]]


def test_continuations_with_one_body_share_a_sequence() -> None:
    sequences, readings = score_sequences(request_of([4, 6], [5, 6], [4, 7]), with_prompt=False)
    assert [sequence.tokens.tolist() for sequence in sequences] == [[*PROMPT, 4], [*PROMPT, 5]]
    assert readings[0].sequence is readings[2].sequence
    assert readings[1].sequence is sequences[1]


def test_sequence_omits_the_last_token_of_a_continuation() -> None:
    """No log-prob depends on it."""
    (sequence,), _ = score_sequences(request_of([4, 6, 8]), with_prompt=False)
    assert sequence.tokens.tolist() == [*PROMPT, 4, 6]
    assert sequence.prefill_length == 5


def test_target_positions_ascend() -> None:
    sequences, _ = score_sequences(request_of([4, 6], [4, 7], [5]), with_prompt=True)
    for sequence in sequences:
        assert (np.diff(sequence.targets.positions) >= 0).all()


def test_prompt_targets_are_all_tokens_but_the_first() -> None:
    positions, tokens = prompt_targets(request_of([1]))
    assert positions.tolist() == [0, 1]
    assert tokens.tolist() == [11, 12]


def test_prompt_targets_are_on_the_first_sequence_only() -> None:
    sequences, _ = score_sequences(request_of([4, 6], [5, 6]), with_prompt=True)
    first, second = sequences
    assert first.targets.positions.tolist() == [0, 1, 2, 3]
    assert first.targets.tokens.tolist() == [11, 12, 4, 6]
    assert second.targets.positions.tolist() == [2, 3]


def test_prompt_logprobs_exclude_the_continuation() -> None:
    request = request_of([4, 6], [5])
    _, readings = score_sequences(request, with_prompt=True)
    compute(readings)
    completion = completed(request, readings, prompt_top_k=2)
    assert completion.prompt_logprobs is not None
    expected = [logprob_of(PROMPT, 0, 11), logprob_of(PROMPT, 1, 12)]
    assert completion.prompt_logprobs.tolist() == expected
    assert completion.prompt_top_token_ids == token_ids([11, 12, 12, 13])
    assert completion.prompt_top_logprobs is not None
    assert completion.prompt_top_logprobs.tolist() == list(np.repeat(expected, 2))


def test_prompt_logprobs_of_top_0_have_no_top_tokens() -> None:
    request = request_of([4])
    _, readings = score_sequences(request, with_prompt=True)
    compute(readings)
    completion = completed(request, readings, prompt_top_k=0)
    assert completion.prompt_logprobs is not None
    assert completion.prompt_top_token_ids is None
    assert completion.prompt_top_logprobs is None


def test_prompt_logprobs_of_one_token_are_empty() -> None:
    targets = Targets(np.zeros(0, np.int32), np.zeros(0, np.int32))
    completion = with_prompt_logprobs(Completion(RowRef(0, 0), prompt_tokens=1), targets, 0)
    assert completion.prompt_logprobs is not None
    assert completion.prompt_logprobs.tolist() == []


def test_loglikelihood_sums_in_float64() -> None:
    """In float32, 2^-24 would vanish beside 1."""
    sequences, readings = score_sequences(request_of([4, 6, 8]), with_prompt=False)
    values = np.asarray([-1.0, -(2.0**-25), -(2.0**-25)], np.float32)
    no_top_ids = np.zeros((3, 0), np.int32)
    no_top_logprobs = np.zeros((3, 0), np.float32)
    index = np.arange(3)
    sequences[0].targets.fill(index, values, np.ones(3, np.bool_), no_top_ids, no_top_logprobs)
    assert readings[0].score(None).loglikelihood == -1.0 - 2.0**-24
