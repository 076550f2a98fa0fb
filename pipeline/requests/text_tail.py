"""The end of a long text, cut where its tokens are those of the whole text.

Under --on-overflow truncate-left only the last tokens of a prompt are used. A prompt of 20 MB is
not encoded as a whole for them: 6 million Python integers took the driver to 1.4 GB.
"""

import unicodedata

from pipeline.requests.tokenizer import Tokenizer

CHARS_PER_TOKEN = 16  # of the first piece that is tried; twice as many each time it is too short


def text_tail(text: str, tokenizer: Tokenizer, tokens: int) -> str:
    """Returns an end of `text` that has the same last `tokens` tokens as the whole text.

    No token covers a place between two characters that stand beside each other in no piece of the
    vocabulary, so SentencePiece encodes the text in front of it and behind it apart. In a text
    without such a place in the piece that is tried, such as one letter repeated, the piece begins
    anywhere, and the tokens are those of this piece alone.
    """
    chars = CHARS_PER_TOKEN * tokens
    while chars < len(text):
        start = _border(text, len(text) - chars, chars // 2, tokenizer.inner_pairs)
        if len(tokenizer.encode_fragment(text[start:])) >= tokens:
            # One character more: the space that SentencePiece puts before a text joins that one.
            return text[start - 1 :]
        chars *= 2
    return text


def _border(text: str, first: int, most_chars: int, inner_pairs: frozenset[str]) -> int:
    """Returns the first place from `first` on that no token covers; `first` if none is near."""
    for start in range(first, first + most_chars):
        if _is_border(text[start - 1 : start + 1], inner_pairs):
            return start
    return first


def _is_border(pair: str, inner_pairs: frozenset[str]) -> bool:
    """Whether no token covers both characters, and no normalization joins them."""
    if pair in inner_pairs or pair.isspace():
        return False
    return not unicodedata.combining(pair[1]) and unicodedata.is_normalized("NFKC", pair)
