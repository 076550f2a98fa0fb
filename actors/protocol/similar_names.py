"""Finds the name that was probably meant by one that does not exist. Standard library only."""

from collections.abc import Collection
from difflib import get_close_matches

from actors.protocol.plain_text import quoted

SIMILARITY = 0.6  # of two names, as difflib measures it: its own default


def closest_name(
    name: str, names: Collection[str], *, similarity: float = SIMILARITY
) -> str | None:
    """Returns the most similar of `names`; None if none is as similar as `similarity`."""
    return next(iter(get_close_matches(name, names, 1, similarity)), None)


def suggestion(name: str, names: Collection[str]) -> str:
    """Returns the end of a message about an unknown name.

    Returns:
        "; did you mean 'text'?", or the names that exist if none is similar.
    """
    similar = closest_name(name, names)
    if similar is not None:
        return f"; did you mean {quoted(similar)}?"
    return f"; there are {', '.join(names)}"
