"""Requests of given lengths with random tokens: a workload where there is no data yet."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from actors.protocol.messages import Request, RowRef, token_ids
from actors.protocol.sampling import Sampling

LENGTH_SPREAD = 0.4  # standard deviation of the logarithm of a length


@dataclass(frozen=True, slots=True)
class RowLengths:
    """Lengths of the rows of a run, in tokens.

    Args:
        prompt_tokens: mean length of a prompt, the shared prefix included.
        completion_tokens: mean length of a completion; 0: the task scores continuations.
        prefix_tokens: leading tokens that prompts share.
        rows_per_prefix: rows that share a prefix; None: all.
        continuations: of one token each, that the task scores.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    prefix_tokens: int = 0
    rows_per_prefix: int | None = None
    continuations: int = 4


@dataclass(frozen=True, slots=True)
class SyntheticRows:
    """Requests, and the tokens that each of them generates."""

    requests: tuple[Request, ...]
    completion_tokens: tuple[int, ...]  # by the number of the row

    def tokens_of(self, request: Request) -> int:
        """Returns the tokens that a request generates."""
        return self.completion_tokens[request.ref.row]


def synthetic_rows(
    lengths: RowLengths, count: int, *, vocab_size: int, seed: int, max_len: int | None = None
) -> SyntheticRows:
    """Returns `count` requests; equal arguments give equal requests.

    Lengths vary around their means as text does: their logarithms are normally distributed, cut
    at three times the mean and where a row would be longer than `max_len`.
    """
    random = np.random.default_rng(seed)
    own_mean = lengths.prompt_tokens - lengths.prefix_tokens
    own_lengths = _varied(random, own_mean, count)
    completions = _varied(random, lengths.completion_tokens, count)
    if max_len is not None:
        completions = np.minimum(completions, max_len - lengths.prompt_tokens)
        most_own = max_len - lengths.prefix_tokens - max(1, int(completions.max()))
        own_lengths = np.minimum(own_lengths, max(1, most_own))
    requests = tuple(_requests(lengths, own_lengths, completions, random, vocab_size))
    return SyntheticRows(requests, tuple(completions.tolist()))


def drawn_completions(mean: int, count: int, *, seed: int) -> list[int]:
    """Returns lengths of `count` completions around a mean; equal arguments give equal lengths."""
    lengths: list[int] = _varied(np.random.default_rng(seed), mean, count).tolist()
    return lengths


def _requests(
    lengths: RowLengths,
    own_lengths: np.ndarray,
    completions: np.ndarray,
    random: np.random.Generator,
    vocab_size: int,
) -> Iterator[Request]:
    count = len(own_lengths)
    rows_per_prefix = lengths.rows_per_prefix or count
    most_tokens = int(completions.max())
    prefix: list[int] = []
    for row in range(count):
        if row % rows_per_prefix == 0:
            prefix = _tokens(random, lengths.prefix_tokens, vocab_size)
        own = _tokens(random, int(own_lengths[row]), vocab_size)
        prompt_ids = token_ids(prefix + own)
        if lengths.completion_tokens:
            yield Request(RowRef(0, row), prompt_ids, Sampling(max_tokens=most_tokens))
        else:
            choices = range(1, 1 + lengths.continuations)
            continuations = tuple(token_ids([choice]) for choice in choices)
            yield Request(RowRef(0, row), prompt_ids, continuations=continuations)


def _tokens(random: np.random.Generator, count: int, vocab_size: int) -> list[int]:
    ids: list[int] = random.integers(1, vocab_size, count).tolist()
    return ids


def _varied(random: np.random.Generator, mean: int, count: int) -> np.ndarray:
    """Returns lengths with a given mean, at least one token each; zeros where the mean is zero."""
    if mean == 0:
        return np.zeros(count, np.int64)
    values = random.lognormal(0.0, LENGTH_SPREAD, count)
    values *= mean / values.mean()
    return np.clip(np.round(values), 1, 3 * mean).astype(np.int64)
