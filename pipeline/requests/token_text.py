"""The text of a completion in pieces, one for each token or character, with its log-prob."""

import math
from collections.abc import Iterator, Sequence

from pipeline.requests.tokenizer import Tokenizer

# Upper limits of the probabilities of tokens that pages and terminals colour, least likely first.
PROBABILITY_LIMITS = (0.01, 0.1, 0.5, 0.9)


def text_pieces(
    tokens: Sequence[bytes], logprobs: Sequence[float | None]
) -> Iterator[tuple[str, float | None]]:
    """Yields the text of each token with its log-prob.

    A character of several tokens has the log-prob of the last one. Bytes that are not UTF-8 at the
    end have none.

    Args:
        tokens: the bytes that each token adds to the text.
        logprobs: of the tokens, natural logarithms.
    """
    pending = b""
    for token, logprob in zip(tokens, logprobs, strict=True):
        pending += token
        try:
            piece = pending.decode()
        except UnicodeDecodeError:
            continue
        yield piece, logprob
        pending = b""
    if pending:
        yield pending.decode(errors="replace"), None


def token_bytes(tokenizer: Tokenizer, ids: Sequence[int]) -> list[bytes]:
    """Returns the bytes of each token; ids that the tokenizer does not have are without text."""
    table = tokenizer.token_bytes
    return [table[token] if token < len(table) else b"" for token in ids]


def probability_rank(logprob: float | None) -> int:
    """Returns how many of `PROBABILITY_LIMITS` the probability of a token reaches.

    A token without a log-prob reaches all of them: nothing is to be coloured.
    """
    if logprob is None or math.isnan(logprob):
        return len(PROBABILITY_LIMITS)
    probability = math.exp(min(logprob, 0.0))
    return sum(probability >= limit for limit in PROBABILITY_LIMITS)
