"""Windows of texts that are longer than the context."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.protocol.messages import Request, RowRef, token_ids
from pipeline.requests.windows import text_windows, window_count, window_requests

HARNESS = json.loads((Path(__file__).parents[2] / "data" / "rolling_windows.json").read_text())


@pytest.mark.parametrize("case", HARNESS["cases"], ids=str)
def test_windows_are_those_of_the_harness(case: dict[str, Any]) -> None:
    """Its prefix token is the first token of the text, so its positions are ours less one."""
    max_len = case["max_seq_len"] + 1
    windows = text_windows(case["tokens"] + 1, max_len, max_len - case["context_len"])
    rows = [[window.start - 1, window.scored - 1, window.end - 1] for window in windows]
    assert rows == case["windows"]


@given(st.data())
def test_windows_score_each_token_but_the_first_once(data: st.DataObject) -> None:
    tokens = data.draw(st.integers(2, 200))
    max_len = data.draw(st.integers(2, 64))
    stride = data.draw(st.integers(1, max_len - 1))
    windows = list(text_windows(tokens, max_len, stride))
    scored = [position for window in windows for position in range(window.scored, window.end)]
    assert scored == list(range(1, tokens))
    assert len(windows) == window_count(tokens, max_len, stride)
    for window in windows:
        assert 0 <= window.start < window.scored < window.end
        assert window.end - window.start <= max_len
    for window in windows[1:]:
        assert window.end - window.start == max_len
        assert window.end - window.scored <= stride


def test_window_requests_have_their_own_addresses() -> None:
    row = Request(RowRef(3, 5), token_ids(), row_id="book")
    requests = list(window_requests(row, token_ids(range(10, 20)), max_len=4, stride=2))
    assert [request.ref for request in requests] == [
        RowRef(3, 5, window=window, windows=4) for window in range(4)
    ]
    assert [(list(request.prompt_ids), list(request.continuations[0])) for request in requests] == [
        ([10], [11, 12, 13]),
        ([12, 13], [14, 15]),
        ([14, 15], [16, 17]),
        ([16, 17], [18, 19]),
    ]
    assert {request.row_id for request in requests} == {"book"}
