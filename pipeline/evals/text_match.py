"""A completion → the answer in it → whether it is the expected one, as lm-evaluation-harness cuts, filters and compares.

Knows no task: patterns come from the caller.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

NO_MATCH = "[invalid]"


@dataclass(frozen=True, slots=True)
class Extraction:
    """A pattern, and which of its matches in a text is the answer: 0 the first, -1 the last."""

    name: str
    pattern: str
    which: int = 0

    def answer(self, text: str) -> str:
        """Returns the answer in `text`: the match, or of a pattern with several groups the first one that is not empty."""
        found = re.findall(self.pattern, text)
        if not found:
            return NO_MATCH
        match: str | tuple[str, ...] = found[self.which]
        if isinstance(match, tuple):
            match = next((group for group in match if group), NO_MATCH)
        return match.strip()


def cut_at_stops(text: str, stops: Sequence[str]) -> str:
    """Returns `text` up to the first stop string in it.

    A text that the engine ended there has none, and stays.
    """
    for stop in stops:
        text = text.split(stop, maxsplit=1)[0]
    return text


def exact_match(answer: str, target: str, ignored: Sequence[str]) -> bool:
    """Returns whether both are the same once the patterns `ignored`, in this order, are removed and case is ignored."""
    return _plain(answer, ignored) == _plain(target, ignored)


def _plain(text: str, ignored: Sequence[str]) -> str:
    for pattern in ignored:
        text = re.sub(pattern, "", text)
    return text.lower()
