"""The text of a completion, token by token, with the probability of each token as its colour."""

from collections.abc import Sequence

from rich.text import Text

from actors.protocol.plain_text import one_line
from pipeline.output.run_folder import RunFolder
from pipeline.requests.token_text import PROBABILITY_LIMITS, probability_rank, text_pieces
from pipeline.requests.tokenizer import Tokenizer

# Background of a token by the rank of its probability, from the least likely to the most likely.
COLOURS = ("on #c62828", "on #ef6c00", "on #9e9d24", "on #558b2f", "")
TEXT_COLOUR = "white"


def coloured_text(tokens: Sequence[bytes], logprobs: Sequence[float | None]) -> Text:
    """Returns the text of tokens, each on the colour of its probability.

    A character of several tokens has the colour of the last one.

    Args:
        tokens: the bytes that each token adds to the text.
        logprobs: of the tokens; None leaves a token without colour.
    """
    text = Text()
    for piece, logprob in text_pieces(tokens, logprobs):
        text.append(_printable(piece), style=style_of(logprob))
    return text


def run_tokenizer(folder: RunFolder) -> Tokenizer | None:
    """Returns the tokenizer that run.json names; None if it names none.

    Raises:
        GrokBatchError: it is not readable.
    """
    url = folder.description().get("config", {}).get("tokenizer")
    if not url:
        return None
    return Tokenizer(folder.client.read(url)[0])


def style_of(logprob: float | None) -> str:
    """Returns the style of a token; empty for a likely one."""
    colour = COLOURS[probability_rank(logprob)]
    return f"{TEXT_COLOUR} {colour}" if colour else ""


def legend() -> Text:
    """Returns the colours with their probabilities."""
    text = Text("probability of a token: ")
    for limit, colour in zip(PROBABILITY_LIMITS, COLOURS, strict=False):
        text.append(f" below {limit:g} ", style=f"{TEXT_COLOUR} {colour}")
    return text


def _printable(piece: str) -> str:
    lines = [one_line(line) for line in piece.split("\n")]
    return "\n".join(lines)
