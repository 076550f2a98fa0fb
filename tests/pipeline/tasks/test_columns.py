"""Output columns that tasks choose from: which options add which."""

import pyarrow as pa
import pytest

from actors.protocol.messages import Completion, RowRef, Score, token_ids
from pipeline.records import OutputRow
from pipeline.tasks import columns


@pytest.mark.parametrize(
    ("top", "names"),
    [
        (None, []),
        (0, ["token_logprobs", "cumulative_logprob"]),
        (1, ["token_logprobs", "cumulative_logprob", "top_token_ids", "top_logprobs"]),
    ],
)
def test_generated_logprobs_depend_on_k(top: int | None, names: list[str]) -> None:
    assert [column.name for column in columns.generated_logprobs(top)] == names


@pytest.mark.parametrize(
    ("top", "names"),
    [
        (None, []),
        (0, ["prompt_logprobs"]),
        (1, ["prompt_logprobs", "prompt_top_token_ids", "prompt_top_logprobs"]),
    ],
)
def test_prompt_logprobs_depend_on_k(top: int | None, names: list[str]) -> None:
    assert [column.name for column in columns.prompt_logprobs(top)] == names


@pytest.mark.parametrize("choices", [False, True])
def test_scores_are_lists_for_choices(choices: bool) -> None:
    for column in columns.scores(choices=choices):
        assert pa.types.is_list(column.type) == choices


def test_scores_of_a_failed_row_are_null_and_of_one_choice_a_list() -> None:
    good = Completion(RowRef(0, 0), scores=(Score(-1.5, is_greedy=True, tokens=2),))
    failed = Completion.failed(RowRef(0, 1), "engine_crash", "text")
    samples = [OutputRow(good, None), OutputRow(failed, None)]
    expected = {"loglikelihood": -1.5, "is_greedy": True, "scored_tokens": 2}
    for column in columns.scores(choices=True):
        assert column.build(samples).to_pylist() == [[expected[column.name]], None]
    for column in columns.scores(choices=False):
        assert column.build(samples).to_pylist() == [expected[column.name], None]


def test_boundary_chars_are_lists_for_choices() -> None:
    scores = (Score(-1.5, True, 2, boundary_chars=3), Score(-1.0, True, 1))
    samples = [OutputRow(Completion(RowRef(0, 0), scores=scores), None)]
    assert columns.boundary_chars(choices=True).build(samples).to_pylist() == [[3, 0]]
    one = [OutputRow(Completion(RowRef(0, 0), scores=scores[:1]), None)]
    assert columns.boundary_chars(choices=False).build(one).to_pylist() == [3]


def test_completion_of_no_tokens_differs_from_a_failed_one() -> None:
    empty = Completion(RowRef(0, 0), token_ids=token_ids([]))
    failed = Completion.failed(RowRef(0, 1), "engine_crash", "text")
    samples = [OutputRow(empty, ""), OutputRow(failed, None)]
    values = {column.name: column.build(samples).to_pylist() for column in columns.COMPLETION}
    assert values["token_ids"] == [[], None]
    assert values["completion_tokens"] == [0, None]
    assert values["text"] == ["", None]
    assert values["finish_reason"] == [None, "error"]
