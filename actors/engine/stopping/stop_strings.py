"""Finds stop strings in a completion, token by token, across token borders.

Works on bytes: the engine does not depend on the tokenizer.

SentencePiece decodes piece by piece, so the bytes of a completion are the bytes of its tokens,
joined.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.protocol.errors import InvalidParameterError


@dataclass(frozen=True, slots=True)
class StopMatch:
    """A completed stop string; `text_bytes` bytes of the completion's text precede it."""

    stop: str
    text_bytes: int


@dataclass(slots=True)
class StopSearch:
    """The search through one completion.

    `stops` in the order the user gave them; earliest start wins, then that order.
    """

    stops: tuple[str, ...]
    token_bytes: Sequence[bytes]
    _needles: tuple[bytes, ...] = field(init=False)
    _text: bytearray = field(init=False, default_factory=bytearray)
    # bytes before a new token that a stop string ending in it may touch
    _reach: int = field(init=False)

    def __post_init__(self) -> None:
        self._needles = tuple(stop.encode() for stop in self.stops)
        if not all(self._needles):
            raise InvalidParameterError(
                "stop: an empty string would end every completion at once; remove it"
            )
        self._reach = max((len(needle) for needle in self._needles), default=1) - 1

    def feed(self, token: int, *, armed: bool) -> StopMatch | None:
        """Takes the next token.

        Returns the match it completes. Unless `armed` (min_tokens not reached) it only remembers.
        """
        begin = max(0, len(self._text) - self._reach)
        self._text += self.token_bytes[token]
        if not armed:
            return None
        matches: list[tuple[int, int]] = []
        for order, needle in enumerate(self._needles):
            position = self._text.find(needle, begin)
            if position >= 0:
                matches.append((position, order))
        if not matches:
            return None
        position, order = min(matches)
        return StopMatch(stop=self.stops[order], text_bytes=position)
