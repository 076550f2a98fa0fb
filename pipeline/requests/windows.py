"""Splits the token ids of a text that is longer than the context into windows.

Each token but the first is scored in exactly one window, given the tokens before it that the window
has. The windows are those of `get_rolling_token_windows` and `make_disjoint_window` of
lm-evaluation-harness, with the first token of the text as its prefix token, `max_len` - 1 as its
`max_seq_len` and `max_len` - `stride` as its `context_len`.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace

from actors.protocol.messages import Request, RowRef


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `start` to `end` of a text, of which those from `scored` on are scored."""

    start: int
    scored: int
    end: int


def text_windows(tokens: int, max_len: int, stride: int) -> Iterator[Window]:
    """Yields the windows of a text, in its order.

    The first window scores all tokens that it has but one. Every other window has `max_len` tokens
    and scores at most `stride` of them.

    Args:
        tokens: of the text, at least 2.
        max_len: most tokens of a window, at least 2.
        stride: most tokens that a window after the first one scores, from 1 to `max_len` - 1.
    """
    end = min(tokens, max_len)
    yield Window(0, 1, end)
    while end < tokens:
        scored = end
        end = min(tokens, scored + stride)
        yield Window(end - max_len, scored, end)


def window_count(tokens: int, max_len: int, stride: int) -> int:
    """Returns the number of `text_windows`."""
    beyond_first = max(tokens - max_len, 0)
    return 1 + -(-beyond_first // stride)


def window_requests(
    request: Request, ids: "array[int]", max_len: int, stride: int
) -> Iterator[Request]:
    """Yields one score request per window of a text, with its address `ref.window`.

    They are made one at a time: a long text with a small stride has many times its tokens in them.

    Args:
        request: of the row, without token ids.
        ids: of the text, at least 2.
        max_len: as for `text_windows`.
        stride: as for `text_windows`.
    """
    windows = window_count(len(ids), max_len, stride)
    for number, window in enumerate(text_windows(len(ids), max_len, stride)):
        yield replace(
            request,
            ref=_window_ref(request.ref, number, windows),
            prompt_ids=ids[window.start : window.scored],
            continuations=(ids[window.scored : window.end],),
        )


def _window_ref(ref: RowRef, window: int, windows: int) -> RowRef:
    return RowRef(ref.shard, ref.row, ref.sample, ref.samples, window, windows)
