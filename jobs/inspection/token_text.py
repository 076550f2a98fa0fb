"""The text of a completion, token by token, with the probability of each token as its colour."""

import math
from collections.abc import Sequence

from rich.text import Text

from actors.protocol.plain_text import one_line

# Background of a token by its probability, from the least likely to the most likely.
COLOURS: tuple[tuple[float, str], ...] = (
    (0.01, "on #c62828"),
    (0.1, "on #ef6c00"),
    (0.5, "on #9e9d24"),
    (0.9, "on #558b2f"),
    (1.1, ""),
)
TEXT_COLOUR = "white"


def coloured_text(tokens: Sequence[bytes], logprobs: Sequence[float | None]) -> Text:
    """Returns the text of tokens, each on the colour of its probability.

    A character of several tokens has the colour of the last one.

    Args:
        tokens: the bytes that each token adds to the text.
        logprobs: of the tokens; None leaves a token without colour.
    """
    text = Text()
    pending = b""
    for token, logprob in zip(tokens, logprobs, strict=True):
        pending += token
        try:
            piece = pending.decode()
        except UnicodeDecodeError:
            continue
        text.append(_printable(piece), style=style_of(logprob))
        pending = b""
    text.append(_printable(pending.decode(errors="replace")))
    return text


def style_of(logprob: float | None) -> str:
    """Returns the style of a token; empty for a likely one."""
    if logprob is None or math.isnan(logprob):
        return ""
    probability = math.exp(min(logprob, 0.0))
    colour = next(colour for limit, colour in COLOURS if probability < limit)
    return f"{TEXT_COLOUR} {colour}" if colour else ""


def legend() -> Text:
    """Returns the colours with their probabilities."""
    text = Text("probability of a token: ")
    for limit, colour in COLOURS:
        if colour:
            text.append(f" below {limit:g} ", style=f"{TEXT_COLOUR} {colour}")
    return text


def _printable(piece: str) -> str:
    lines = [one_line(line) for line in piece.split("\n")]
    return "\n".join(lines)
