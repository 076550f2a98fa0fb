"""Turns score requests into sequences with targets, and filled targets into scores. No JAX.

A prompt is computed once for all its continuations: what differs between them are only the tokens
after the prompt. The log-prob of a continuation's first token is read at the prompt's last token,
so continuations of one token (the letters of a multiple-choice question) need no sequence of their
own: one sequence carries a target for each of them.
"""

from dataclasses import dataclass, replace

import numpy as np

from actors.engine.sequence import Sequence, Targets
from actors.protocol.messages import Completion, Request, Score, logprobs, token_ids


@dataclass(frozen=True, slots=True)
class Reading:
    """Where the tokens of one continuation are found: the targets `index` of `sequence`."""

    sequence: Sequence
    index: np.ndarray

    def score(self) -> Score:
        """Returns the continuation's score once its sequence has been computed; sums in float64."""
        targets = self.sequence.targets
        return Score(
            loglikelihood=float(targets.logprobs[self.index].astype(np.float64).sum()),
            is_greedy=bool(targets.is_greedy[self.index].all()),
            tokens=len(self.index),
        )


def prompt_targets(request: Request) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions and tokens of the prompt's own log-probs: every token but the first."""
    ids = np.asarray(request.prompt_ids, np.int32)
    return np.arange(len(ids) - 1, dtype=np.int32), ids[1:]


def score_sequences(request: Request, *, with_prompt: bool) -> tuple[list[Sequence], list[Reading]]:
    """Returns one sequence for each different body (continuation without its last token), and a reading per continuation.

    Args:
        request: a score request.
        with_prompt: also ask for the log-probs of the prompt's tokens, on the first sequence, ahead of all other targets.
    """
    bodies: dict[bytes, list[int]] = {}
    for number, ids in enumerate(request.continuations):
        bodies.setdefault(ids[:-1].tobytes(), []).append(number)
    sequences: list[Sequence] = []
    readings: dict[int, Reading] = {}
    for group in bodies.values():
        lead = prompt_targets(request) if with_prompt and not sequences else _NONE
        sequence, found = _sequence(request, group, lead)
        sequences.append(sequence)
        readings.update(found)
    return sequences, [readings[number] for number in range(len(request.continuations))]


_NONE = (np.zeros(0, np.int32), np.zeros(0, np.int32))


def _sequence(
    request: Request, group: list[int], lead: tuple[np.ndarray, np.ndarray]
) -> tuple[Sequence, dict[int, Reading]]:
    """Builds the sequence that serves the continuations `group`, which differ in their last token only."""
    prompt = np.asarray(request.prompt_ids, np.int32)
    scored = [np.asarray(request.continuations[number], np.int32) for number in group]
    length = len(scored[0])
    positions = np.concatenate(
        [lead[0], *([np.arange(length, dtype=np.int32) + len(prompt) - 1] * len(group))]
    )
    tokens = np.concatenate([lead[1], *scored])
    order = np.argsort(positions, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    whole = np.concatenate([prompt, scored[0][:-1]])
    sequence = Sequence(
        request, whole, goal=len(whole), targets=Targets(positions[order], tokens[order])
    )
    begins = len(lead[0]) + length * np.arange(len(group))
    found = {
        n: Reading(sequence, place[at : at + length]) for n, at in zip(group, begins, strict=True)
    }
    return sequence, found


def score_completion(
    request: Request, readings: list[Reading], cached_tokens: int, top_k: int | None
) -> Completion:
    """Returns the completion of a score request whose sequences have all been computed."""
    completion = Completion(
        ref=request.ref,
        attempts=request.attempts,
        prompt_tokens=len(request.prompt_ids),
        cached_tokens=cached_tokens,
        scores=tuple(reading.score() for reading in readings),
    )
    return with_prompt_logprobs(completion, readings[0].sequence.targets, top_k)


def with_prompt_logprobs(completion: Completion, targets: Targets, top_k: int | None) -> Completion:
    """Returns the completion with the prompt's log-probs, unless they were not asked for (`top_k` is None)."""
    if top_k is None:
        return completion
    # The other targets lie at the last prompt position or later, so the prompt's come first.
    count = (completion.prompt_tokens or 1) - 1
    return replace(
        completion,
        prompt_logprobs=logprobs(targets.logprobs[:count].tolist()),
        prompt_top_token_ids=token_ids(targets.top_ids[:count, :top_k].ravel().tolist())
        if top_k
        else None,
        prompt_top_logprobs=logprobs(targets.top_logprobs[:count, :top_k].ravel().tolist())
        if top_k
        else None,
    )
