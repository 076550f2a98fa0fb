"""Limits and defaults by which rows become requests, the same for the whole run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from actors.protocol.parameters import Vocabulary
from actors.protocol.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class RequestRules:
    """Limits of the model and of the run, and the sampling of rows without columns of their own."""

    vocab_size: int  # of the model: ids at or above it are not valid
    max_len: int  # longest prompt + completion, tokens
    # what becomes of a longer row; "window": its text is split into windows
    overflow: Literal["error", "truncate-left", "window"] = "error"
    defaults: SamplingParams = field(default_factory=SamplingParams)
    # of the tokenizer, for sampling parameters that are text; None: the run has none
    encode_fragment: Callable[[str], Sequence[int]] | None = None
    # of the tokenizer: where each token of a text lies in it, begin and end in characters; None: a
    # continuation begins behind the tokens of its context alone, as in lm-evaluation-harness
    token_spans: Callable[[str], Sequence[tuple[int, int]]] | None = None
    # of the tokenizer: the UTF-8 bytes of the text of token ids, where the output has them
    text_bytes: Callable[[Sequence[int]], int] | None = None
    # stands before a continuation without a context token: the model's end-of-text token
    context_token: int = 2
    window_stride: int = 1  # most tokens that a window after the first one scores

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens that sampling parameters may name."""
        return Vocabulary(self.vocab_size, self.encode_fragment)
