"""A SentencePiece model: text → token ids, and token ids → text."""

import codecs
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import sentencepiece

from pipeline.errors import ConfigError

REPLACEMENT_CHARACTER = "\ufffd"
WORD_BOUNDARY = "\u2581"  # how pieces write a space


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    """Returns one replacement character per byte that is not UTF-8, as SentencePiece does.

    Python's own handler "replace" returns one for several bytes.
    """
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return REPLACEMENT_CHARACTER * (error.end - error.start), error.end


codecs.register_error("replace_each_byte", _replace_each_byte)

FRAGMENT_ANCHOR = "\x02"


class Tokenizer:
    """A SentencePiece model. No BOS is prepended; EOS and other control tokens have no text."""

    def __init__(self, model: bytes) -> None:
        """Parses the bytes of a SentencePiece model file.

        Raises:
            ConfigError: they are not a model.
        """
        self._model = sentencepiece.SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise ConfigError(
                f"tokenizer: expected a SentencePiece model, got {len(model)} bytes that are not "
                f"one ({error}); check --tokenizer"
            ) from error
        self.vocab_size: int = self._model.vocab_size()
        self.token_bytes: tuple[bytes, ...] = tuple(self._token_bytes())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the token ids of each text (valid Unicode); an empty text has none."""
        if not texts:
            return []
        ids: list[list[int]] = self._model.encode(list(texts), out_type=int)
        return ids

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Returns where each token of `encode([text])` lies in the text: begin and end, characters.

        A character of several byte tokens belongs to the last of them: those before it are empty
        and begin where the character does.
        """
        mapping: dict[str, list[tuple[int, int]]] = self._model.encode(
            text, return_type="offset_mapping"
        )
        return mapping["offsets"]

    @cached_property
    def inner_pairs(self) -> frozenset[str]:
        """Pairs of characters that stand beside each other in a piece of the vocabulary."""
        pairs: set[str] = set()
        for token in range(self.vocab_size):
            piece: str = self._model.id_to_piece(token)
            text = piece.replace(WORD_BOUNDARY, " ")
            pairs.update(map("".join, pairwise(text)))
        return frozenset(pairs)

    def encode_fragment(self, text: str) -> list[int]:
        """Returns the ids of a text that continues another one.

        `encode` treats a text as a beginning, to which SentencePiece adds a space. After a control
        character, which is always a byte token and never merged, the text keeps its own form.
        """
        anchor: list[int] = self._model.encode(FRAGMENT_ANCHOR, out_type=int)
        ids: list[int] = self._model.encode(FRAGMENT_ANCHOR + text, out_type=int)
        return ids[len(anchor) :]

    def text(self, ids: Sequence[int], text_bytes: int | None = None) -> str:
        """Returns the text of generated ids as it continues their prompt.

        It is the join of the tokens' bytes, because SentencePiece's own decode(ids) drops a leading
        space that decode(prompt + ids) has.

        Args:
            ids: of the completion; ids that the tokenizer does not have are without text.
            text_bytes: length to which the text is cut, in bytes; None: all of it.
        """
        table = self.token_bytes
        joined = b"".join([table[token] for token in ids if token < len(table)])
        return joined[:text_bytes].decode("utf-8", errors="replace_each_byte")

    def text_bytes(self, ids: Sequence[int]) -> int:
        """Returns the UTF-8 bytes of the text that `ids` encode as a whole.

        The space that SentencePiece puts before a text is no part of it.
        """
        known = [token for token in ids if token < self.vocab_size]
        text: str = self._model.decode(known)
        return len(text.encode())

    def _token_bytes(self) -> Iterator[bytes]:
        """Yields the bytes that each token adds to a text in which it is not the first."""
        model = self._model
        for token in range(self.vocab_size):
            piece: str = model.id_to_piece(token)
            if model.is_byte(token):
                yield bytes([int(piece[3:5], 16)])  # <0xE7>
            elif model.is_control(token):
                yield b""
            elif model.is_unknown(token):
                yield model.decode([token]).encode()
            else:
                yield piece.replace(WORD_BOUNDARY, " ").encode()
