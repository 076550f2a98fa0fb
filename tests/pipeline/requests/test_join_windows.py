"""Completions of windows become the completion of their row."""

import random
from dataclasses import replace

import pytest

from actors.protocol.messages import Completion, Request, RowRef, token_ids
from pipeline.requests.join_windows import join_windows
from pipeline.requests.windows import window_requests
from tests.fakes import answer

ROW = Request(RowRef(3, 5), token_ids(), row_id="book")
IDS = token_ids(range(10, 35))


def windows(row: Request = ROW) -> list[Completion]:
    return [answer(request) for request in window_requests(row, IDS, max_len=8, stride=3)]


def test_windows_in_any_order_become_one_completion() -> None:
    shuffled = windows()
    random.Random(4).shuffle(shuffled)
    [row] = join_windows(shuffled)
    assert row.ref == RowRef(3, 5, windows=7)
    [score] = row.scores
    assert score.tokens == len(IDS) - 1
    assert score.token_ids == IDS[1:]
    assert score.token_logprobs == pytest.approx([-token / 7 for token in IDS[1:]])
    assert score.loglikelihood == pytest.approx(-sum(IDS[1:]) / 7)
    # All seven windows are computed in full: 8 tokens each.
    assert row.prompt_tokens is not None
    assert row.prompt_tokens + score.tokens == 7 * 8


def test_windows_of_several_rows_are_joined_row_by_row() -> None:
    other = replace(ROW, ref=RowRef(3, 6))
    mixed: list[Completion | str] = []
    for window, other_window in zip(windows(), windows(other), strict=True):
        mixed += [window, "a notice", other_window]
    rows = [item for item in join_windows(mixed) if isinstance(item, Completion)]
    assert [row.ref.row for row in rows] == [5, 6]


def test_row_fails_with_the_error_of_its_first_failed_window() -> None:
    pieces = windows()
    for number in (5, 2):
        pieces[number] = Completion.failed(pieces[number].ref, "engine_crash", f"of {number}")
    [row] = join_windows(reversed(pieces))
    assert row.error_message == "of 2"
    assert row.ref == RowRef(3, 5, windows=7)
    assert row.scores == ()


def test_completions_that_are_no_windows_pass_through() -> None:
    single = answer(replace(ROW, prompt_ids=IDS[:1], continuations=(IDS[1:],)))
    assert list(join_windows([single, "a notice"])) == [single, "a notice"]
