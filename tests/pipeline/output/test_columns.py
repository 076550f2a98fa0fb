"""Output columns: values of many samples at once equal those built one by one."""

import math
from array import array
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.protocol.messages import Completion, RowRef, Score, logprobs, token_ids
from pipeline.errors import CommitError
from pipeline.output.columns import vector_column
from pipeline.records import OutputRow
from pipeline.tasks import SCORE
from tests.pipeline.output.samples import failed, ids, row, schema_of


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.none()
        | st.tuples(
            st.lists(st.floats(-50, 0, width=32), max_size=5),
            st.lists(st.floats(-50, 0, width=32), max_size=4),
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 3),
)
def test_columns_equal_values_built_one_by_one(
    values: list[tuple[list[float], list[float]] | None], top: int
) -> None:
    rows, expected = [], []
    for number, value in enumerate(values):
        ref = RowRef(0, number)
        if value is None:
            rows.append(failed(ref))
            expected.append((None, None, None, None, None, None))
            continue
        drawn, prompt = value
        flat = [float(index) for index in range(len(drawn) * top)]
        prompt_flat = [-float(index) for index in range(len(prompt) * top)]
        rows.append(
            OutputRow(
                Completion(
                    ref,
                    token_ids=token_ids(range(len(drawn))),  # type: ignore[arg-type]
                    token_logprobs=logprobs(drawn),
                    top_logprobs=logprobs(flat),
                    top_token_ids=token_ids([int(x) for x in flat]),
                    prompt_logprobs=logprobs(prompt),
                    prompt_top_logprobs=logprobs(prompt_flat),
                    prompt_top_token_ids=token_ids([int(-x) for x in prompt_flat]),
                ),
                "t",
            )
        )
        split = [flat[start : start + top] for start in range(0, len(flat), top)]
        prompt_split = [
            prompt_flat[start : start + top] for start in range(0, len(prompt_flat), top)
        ]
        expected.append(
            (drawn, math.fsum(drawn), split, [None, *prompt], [None, *prompt_split], len(drawn))
        )
    schema = schema_of(ids(1), logprobs=top, prompt_logprobs=top)
    table = schema.table(rows, ids(len(rows)))
    table.validate(full=True)
    names = (
        "token_logprobs",
        "cumulative_logprob",
        "top_logprobs",
        "prompt_logprobs",
        "prompt_top_logprobs",
        "completion_tokens",
    )
    for got, wanted in zip(table.to_pylist(), expected, strict=True):
        assert got["cumulative_logprob"] == pytest.approx(wanted[1], abs=1e-9)
        assert tuple(got[name] for name in names if name != "cumulative_logprob") == (
            wanted[0],
            *wanted[2:],
        )


def test_score_columns_are_lists_for_choices() -> None:
    refs = [RowRef(0, number) for number in range(3)]
    one, two = Score(-1.5, is_greedy=True, tokens=2), Score(-2.5, is_greedy=False, tokens=3)
    rows = [OutputRow(Completion(refs[0], scores=(one,), prompt_tokens=4), None), failed(refs[1])]
    one_score = schema_of(ids(1), task=SCORE, prompt_logprobs=None)
    table = one_score.table(rows, ids(2))
    assert table.select(
        ["loglikelihood", "is_greedy", "scored_tokens", "prompt_tokens"]
    ).to_pylist() == [
        {"loglikelihood": -1.5, "is_greedy": True, "scored_tokens": 2, "prompt_tokens": 4},
        {"loglikelihood": None, "is_greedy": None, "scored_tokens": None, "prompt_tokens": None},
    ]
    rows = [OutputRow(Completion(refs[0], scores=(one, two)), None), failed(refs[1])]
    many_scores = schema_of(ids(1), task=SCORE, prompt_logprobs=None, choices=True)
    table = many_scores.table(rows, ids(2))
    assert table["loglikelihood"].to_pylist() == [[-1.5, -2.5], None]
    assert table["is_greedy"].to_pylist() == [[True, False], None]
    assert table["scored_tokens"].to_pylist() == [[2, 3], None]
    with pytest.raises(CommitError, match="2 scores, expected one"):
        one_score.table(rows, ids(2))


def test_top_column_rejects_values_that_do_not_fit() -> None:
    wrong = Completion(
        RowRef(0, 0),
        token_ids=token_ids([1, 2]),
        top_logprobs=logprobs([-1.0] * 3),
        top_token_ids=token_ids([1] * 3),
    )
    with pytest.raises(CommitError, match="3 top values for 2 tokens"):
        schema_of(ids(1)).table([OutputRow(wrong, "")], ids(1))


def test_prompt_column_of_one_token_has_one_null() -> None:
    table = schema_of(ids(1)).table([row(RowRef(0, 0), prompt=1)], ids(1))
    assert table["prompt_logprobs"].to_pylist() == [[None]]
    assert table["prompt_top_token_ids"].to_pylist() == [[None]]


def test_token_columns_create_no_python_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten million rows matter: a list of lists would be a hundred times slower."""

    class Opaque(array):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            raise AssertionError("an array was walked through in Python")

        __getitem__ = __iter__  # type: ignore[assignment]

    ref = RowRef(0, 0)
    completion = Completion(
        ref, token_ids=Opaque("i", [1, 2]), token_logprobs=Opaque("f", [-1.0, -2.0])
    )
    schema = schema_of(ids(1), logprobs=0, prompt_logprobs=None)
    table = schema.table([OutputRow(completion, "t")], ids(1))
    assert table["token_ids"].to_pylist() == [[1, 2]]
    assert table["cumulative_logprob"].to_pylist() == [-3.0]


def vectors(*values: "list[float] | None") -> list[OutputRow]:
    rows: list[OutputRow] = []
    for number, numbers in enumerate(values):
        embedding = None if numbers is None else logprobs(numbers)
        rows.append(OutputRow(Completion(RowRef(0, number), embedding=embedding), None))
    return rows


def test_vector_column_has_a_null_for_samples_without_a_vector() -> None:
    for value_type in (pa.float32(), pa.float16()):
        column = vector_column("v", value_type, 2, lambda completion: completion.embedding)
        built = column.build(vectors([1.5, -2.0], None, [0.25, 4.0]))
        assert built.type == column.type == pa.list_(value_type, 2)
        assert built.to_pylist() == [[1.5, -2.0], None, [0.25, 4.0]]
        assert column.build(vectors(None)).to_pylist() == [None]


def test_vector_column_refuses_other_lengths_and_numbers_beyond_its_type() -> None:
    column = vector_column("v", pa.float16(), 2, lambda completion: completion.embedding)
    with pytest.raises(CommitError, match="has a vector of 3 numbers, expected 2"):
        column.build(vectors([1.0, 2.0, 3.0]))
    with pytest.raises(CommitError, match="70000, more than float16 holds; use"):
        column.build(vectors([1.0, 7e4]))
