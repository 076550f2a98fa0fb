"""Finds the token at which a completion ends with repetitions of one short pattern.

A pattern of p tokens stands c times at the end exactly when each of the last p (c - 1) tokens
equals the one p before it. So for every p it is enough to count how many tokens in a row did: one
comparison per p and token, whatever the count.
"""

from dataclasses import dataclass, field

import numpy as np

from actors.protocol.errors import InvalidParameterError

NO_TOKEN = -1


@dataclass(slots=True)
class RepetitionSearch:
    """The search through one completion.

    Args:
        max_pattern: longest pattern that is looked for, tokens.
        min_count: how often it must stand at the end, one time after the other.

    Raises:
        InvalidParameterError: a pattern without tokens, or one that need not even come twice.
    """

    max_pattern: int
    min_count: int
    _recent: np.ndarray = field(init=False)  # int32 [max_pattern], the last tokens, newest first
    # int64 [max_pattern]; at p - 1: how many of the last tokens equal the one p before
    _equal: np.ndarray = field(init=False)
    _required: np.ndarray = field(init=False)  # int64 [max_pattern]; at p - 1: how many must

    def __post_init__(self) -> None:
        if self.max_pattern < 1 or self.min_count < 2:
            raise InvalidParameterError(
                "repetition: expected a pattern of at least 1 token that comes at least twice, got "
                "repetition_max_pattern "
                f"{self.max_pattern} and repetition_min_count {self.min_count}"
            )
        self._recent = np.full(self.max_pattern, NO_TOKEN, np.int32)
        self._equal = np.zeros(self.max_pattern, np.int64)
        self._required = np.arange(1, self.max_pattern + 1, dtype=np.int64) * (self.min_count - 1)

    def feed(self, token: int, *, armed: bool) -> bool:
        """Takes the next token.

        Returns whether the completion ends in a loop. Unless `armed` (min_tokens) it only
        remembers.
        """
        self._equal = np.where(self._recent == token, self._equal + 1, 0)
        self._recent[1:] = self._recent[:-1]
        self._recent[0] = token
        return armed and bool((self._equal >= self._required).any())
