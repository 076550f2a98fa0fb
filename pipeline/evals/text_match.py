"""Extraction and comparison of the answer in a completion, as in lm-evaluation-harness.

Does not depend on tasks: patterns come from the caller.
"""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

NO_MATCH = "[invalid]"
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class Extraction:
    """A pattern, and which of its matches in a text is the answer: 0 the first, -1 the last."""

    name: str
    pattern: str
    match_index: int = 0

    def answer(self, text: str) -> str:
        """Returns the match in `text`: with several groups, the first non-empty one."""
        matches = re.findall(self.pattern, text)
        if not matches:
            return NO_MATCH
        match: str | tuple[str, ...] = matches[self.match_index]
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
    """Returns whether both are equal without the patterns `ignored`, and without regard to case.

    Patterns are removed in their order.
    """
    return _normalized(answer, ignored) == _normalized(target, ignored)


def equal_without_punctuation(answer: str, target: str) -> bool:
    """Returns whether both are equal without ASCII punctuation and without regard to case."""
    return _letters(answer) == _letters(target)


def _letters(text: str) -> str:
    return text.lower().translate(NO_PUNCTUATION)


def _normalized(text: str, ignored: Sequence[str]) -> str:
    for pattern in ignored:
        text = re.sub(pattern, "", text)
    return text.lower()
