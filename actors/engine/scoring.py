"""Requests → sequences with targets, and filled targets → scores. No JAX.

A prompt is computed once for all its continuations: they differ only in the tokens after the
prompt. The log-prob of a continuation's first token is read at the prompt's last token, so
continuations of one token (the letters of a multiple-choice question) need no sequence of their
own: one sequence carries a target for each of them.
"""

from array import array
from dataclasses import dataclass, replace

import numpy as np

from actors.engine.scheduling.hidden_states import HiddenStates
from actors.engine.scheduling.sequence import Sequence, Targets, no_targets
from actors.protocol.messages import Completion, Request, Score, logprobs, token_ids


@dataclass(frozen=True, slots=True)
class Reading:
    """Where the log-probs of one continuation are: the targets `index` of `sequence`."""

    sequence: Sequence
    index: np.ndarray
    boundary_chars: int = 0

    def score(self, top_k: int | None, *, with_tail: bool = False) -> Score:
        """Returns the continuation's score once its sequence has been computed; sums in float64.

        Args:
            top_k: most likely tokens beside each scored one; None: no values of single tokens.
            with_tail: also the log-prob of all tokens beside these together.
        """
        targets = self.sequence.targets
        score = Score(
            loglikelihood=float(targets.logprobs[self.index].astype(np.float64).sum()),
            is_greedy=bool(targets.is_greedy[self.index].all()),
            tokens=len(self.index),
            boundary_chars=self.boundary_chars,
        )
        if top_k is None:
            return score

        top_ids, top_logprobs = _top_values(targets, self.index, top_k)
        tail: array[float] | None = None
        if with_tail:
            tail = float_array(targets.tail_logprobs[self.index])
        return replace(
            score,
            tail_logprobs=tail,
            token_ids=token_ids(targets.tokens[self.index].tolist()),
            token_logprobs=logprobs(targets.logprobs[self.index].tolist()),
            top_token_ids=top_ids,
            top_logprobs=top_logprobs,
        )


def prompt_targets(request: Request) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions and tokens of the prompt's own log-probs: every token but the first."""
    ids = np.asarray(request.prompt_ids, np.int32)
    return np.arange(len(ids) - 1, dtype=np.int32), ids[1:]


def request_sequences(
    request: Request, *, with_prompt: bool
) -> tuple[list[Sequence], list[Reading]]:
    """Returns the sequences of a request, and a reading for each of its continuations.

    A request that generates or embeds has one sequence and no reading.

    Args:
        request: a request.
        with_prompt: also request the log-probs of the prompt's tokens, on the first sequence.
    """
    prompt = np.asarray(request.prompt_ids, np.int32)
    if request.embeds:
        hidden = HiddenStates()
        return [Sequence(request, prompt, len(prompt), no_targets(), hidden=hidden)], []
    if request.sampling is None:
        return score_sequences(request, with_prompt=with_prompt)

    targets = no_targets()
    if with_prompt:
        targets = Targets(*prompt_targets(request))
    sequence = Sequence(
        request,
        prompt,
        prefill_length=len(prompt) - 1,
        targets=targets,
        max_new_tokens=request.sampling.max_tokens,
    )
    return [sequence], []


def score_sequences(request: Request, *, with_prompt: bool) -> tuple[list[Sequence], list[Reading]]:
    """Returns the sequences of a score request, and a reading for each continuation.

    Continuations that differ in their last token only share a sequence.

    Args:
        request: a score request.
        with_prompt: also request the log-probs of the prompt's tokens, on the first sequence, ahead
            of all other targets.
    """
    numbers_by_body: dict[bytes, list[int]] = {}
    for number, ids in enumerate(request.continuations):
        body = ids[:-1].tobytes()
        numbers_by_body.setdefault(body, []).append(number)

    sequences: list[Sequence] = []
    readings: dict[int, Reading] = {}
    for numbers in numbers_by_body.values():
        first_targets = (np.zeros(0, np.int32), np.zeros(0, np.int32))
        if with_prompt and not sequences:
            first_targets = prompt_targets(request)
        sequence, indices = _sequence(request, numbers, first_targets)
        sequences.append(sequence)
        for number, index in zip(numbers, indices, strict=True):
            boundary = request.boundary(number)
            scored = index[boundary.context_tokens :]
            readings[number] = Reading(sequence, scored, boundary.context_chars)
    return sequences, [readings[number] for number in range(len(request.continuations))]


def _sequence(
    request: Request, numbers: list[int], first_targets: tuple[np.ndarray, np.ndarray]
) -> tuple[Sequence, list[np.ndarray]]:
    """Builds the sequence for continuations that differ in their last token only.

    Returns it with the indices of the targets of each continuation.
    """
    prompt = np.asarray(request.prompt_ids, np.int32)
    continuations = [np.asarray(request.continuations[number], np.int32) for number in numbers]
    length = len(continuations[0])
    first_position = len(prompt) - 1
    continuation_positions = np.arange(length, dtype=np.int32) + first_position

    prompt_positions, prompt_tokens = first_targets
    positions = np.concatenate([prompt_positions, *([continuation_positions] * len(continuations))])
    tokens = np.concatenate([prompt_tokens, *continuations])
    order = np.argsort(positions, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))

    computed = np.concatenate([prompt, continuations[0][:-1]])
    sequence = Sequence(
        request,
        computed,
        prefill_length=len(computed),
        targets=Targets(positions[order], tokens[order]),
    )
    indices: list[np.ndarray] = []
    for number in range(len(continuations)):
        first = len(prompt_positions) + number * length
        indices.append(rank[first : first + length])
    return sequence, indices


def score_completion(
    request: Request,
    readings: list[Reading],
    cached_tokens: int,
    *,
    prompt_top_k: int | None,
    score_top_k: int | None,
    with_tail: bool = False,
) -> Completion:
    """Returns the completion of a score request whose sequences have all been computed.

    Args:
        request: a score request.
        readings: one per continuation.
        cached_tokens: prompt tokens that were not recomputed.
        prompt_top_k: most likely tokens beside each prompt token; None: no log-probs of the prompt.
        score_top_k: the same for scored tokens.
        with_tail: also the log-prob of all tokens beside these together, and the prompt.
    """
    completion = Completion(
        ref=request.ref,
        prompt_tokens=len(request.prompt_ids),
        cached_tokens=cached_tokens,
        scores=tuple(reading.score(score_top_k, with_tail=with_tail) for reading in readings),
        context_ids=request.prompt_ids if with_tail else None,
    )
    return with_prompt_logprobs(completion, readings[0].sequence.targets, prompt_top_k)


def with_prompt_logprobs(completion: Completion, targets: Targets, top_k: int | None) -> Completion:
    """Returns the completion with the prompt's log-probs.

    It is unchanged if `top_k` is None or the request failed.
    """
    if top_k is None or completion.error_code is not None:
        return completion
    # The other targets lie at the last prompt position or later, so the prompt's come first.
    count = (completion.prompt_tokens or 1) - 1
    top_ids, top_logprobs = _top_values(targets, np.arange(count), top_k)
    return replace(
        completion,
        prompt_logprobs=logprobs(targets.logprobs[:count].tolist()),
        prompt_top_token_ids=top_ids,
        prompt_top_logprobs=top_logprobs,
    )


def float_array(values: np.ndarray) -> "array[float]":
    """Returns float32 values as they travel."""
    floats = logprobs()
    floats.frombytes(np.ascontiguousarray(values, np.float32).tobytes())
    return floats


def int_array(values: np.ndarray) -> "array[int]":
    """Returns int32 values as they travel."""
    ints = token_ids()
    ints.frombytes(np.ascontiguousarray(values, np.int32).tobytes())
    return ints


def _top_values(
    targets: Targets, index: np.ndarray, top_k: int
) -> "tuple[array[int] | None, array[float] | None]":
    """Returns ids and log-probs of the `top_k` most likely tokens of the targets `index`, flat.

    None for both if `top_k` is 0.
    """
    if not top_k:
        return None, None
    top_ids = targets.top_ids[index, :top_k]
    top_logprobs = targets.top_logprobs[index, :top_k]
    return int_array(top_ids), float_array(top_logprobs)
