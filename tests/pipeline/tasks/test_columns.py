"""Output columns that tasks choose from: which options add which."""

import math
from typing import Any

import pyarrow as pa
import pytest

from actors.protocol.messages import Completion, RowRef, Score, logprobs, token_ids
from pipeline.errors import CommitError
from pipeline.records import OutputRow
from pipeline.tasks import columns
from pipeline.tasks.perplexity import NOTHING_SCORED as PERPLEXITY_OF_ONE_TOKEN


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


@pytest.mark.parametrize(
    ("top", "names"),
    [
        (None, []),
        (0, ["scored_token_ids", "scored_logprobs"]),
        (
            1,
            ["scored_token_ids", "scored_logprobs", "scored_top_token_ids", "scored_top_logprobs"],
        ),
    ],
)
def test_scored_logprobs_depend_on_k(top: int | None, names: list[str]) -> None:
    assert [column.name for column in columns.scored_logprobs(top, choices=False)] == names


SCORED = Score(
    -1.75,
    is_greedy=False,
    tokens=2,
    token_ids=token_ids([7, 8]),
    token_logprobs=logprobs([-0.5, -1.25]),
    top_token_ids=token_ids([7, 1, 2, 8]),
    top_logprobs=logprobs([-0.5, -1.0, -0.25, -1.25]),
)
SCORED_VALUES: list[list[Any]] = [
    [7, 8],
    [-0.5, -1.25],
    [[7, 1], [2, 8]],
    [[-0.5, -1.0], [-0.25, -1.25]],
]


def scored_samples(*scores: tuple[Score, ...]) -> list[OutputRow]:
    """Returns a sample with each tuple of scores, then one that failed."""
    samples: list[OutputRow] = []
    for row, of_row in enumerate(scores):
        samples.append(OutputRow(Completion(RowRef(0, row), scores=of_row), None))
    failed = Completion.failed(RowRef(0, len(scores)), "engine_crash", "text")
    return [*samples, OutputRow(failed, None)]


def test_scored_tokens_are_lists_and_null_for_failed_rows() -> None:
    samples = scored_samples((SCORED,), (PERPLEXITY_OF_ONE_TOKEN,), (SCORED,))
    scored = columns.scored_logprobs(2, choices=False)
    for column, values in zip(scored, SCORED_VALUES, strict=True):
        built = column.build(samples)
        assert built.type == column.type
        assert built.to_pylist() == [values, [], values, None]


def test_scored_tokens_of_choices_are_lists_of_lists() -> None:
    samples = scored_samples((SCORED, PERPLEXITY_OF_ONE_TOKEN), (SCORED,))
    scored = columns.scored_logprobs(2, choices=True)
    for column, values in zip(scored, SCORED_VALUES, strict=True):
        built = column.build(samples)
        assert built.type == column.type
        assert built.to_pylist() == [[values, []], [values], None]


def test_bits_per_byte_are_those_of_the_whole_text() -> None:
    one = [OutputRow(Completion(RowRef(0, 0), scores=(SCORED,), prompt_bytes=5), None)]
    unknown = scored_samples((SCORED,))
    text_bytes, bits_per_byte = columns.TEXT_BYTES
    assert text_bytes.build([*one, *unknown]).to_pylist() == [5, None, None]
    expected = 1.75 / math.log(2) / 5
    assert bits_per_byte.build([*one, *unknown]).to_pylist() == [expected, None, None]


def test_windows_are_null_for_failed_rows() -> None:
    completed = OutputRow(Completion(RowRef(0, 0, windows=7), scores=(SCORED,)), None)
    samples = [completed, *scored_samples((SCORED,))]
    assert columns.WINDOWS[0].build(samples).to_pylist() == [7, 1, None]


def test_scored_tokens_that_are_missing_raise() -> None:
    (ids, *_) = columns.scored_logprobs(0, choices=False)
    with pytest.raises(CommitError, match="score without values of its tokens"):
        ids.build(scored_samples((Score(-1.0, is_greedy=True, tokens=1),)))


def test_completion_of_no_tokens_differs_from_a_failed_one() -> None:
    empty = Completion(RowRef(0, 0), token_ids=token_ids([]))
    failed = Completion.failed(RowRef(0, 1), "engine_crash", "text")
    samples = [OutputRow(empty, ""), OutputRow(failed, None)]
    values = {column.name: column.build(samples).to_pylist() for column in columns.COMPLETION}
    assert values["token_ids"] == [[], None]
    assert values["completion_tokens"] == [0, None]
    assert values["text"] == ["", None]
    assert values["finish_reason"] == [None, "error"]
