"""pipeline/output/schema.py: the output table of the contract, by task and options."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from pipeline.output.schema import SCHEMA_VERSION, VERSION_KEY, output_schema, task_columns
from pipeline.tasks import GENERATE, PERPLEXITY, SCORE, TASKS, Task


@dataclass(frozen=True)
class Passthrough:
    passthrough: pa.Schema


INPUTS = Passthrough(
    pa.schema([("id", pa.int64()), ("subject", pa.dictionary(pa.int32(), pa.string()))])
)


def names(**options: Any) -> list[str]:
    return output_schema(
        INPUTS,
        **{
            "task": GENERATE,
            "logprobs": None,
            "prompt_logprobs": None,
            "choices": False,
            **options,
        },
    ).arrow.names


ALWAYS = ["id", "subject", "sample_index", "status", "error_code", "error_message", "attempts"]
COMPLETION = [
    "text",
    "token_ids",
    "finish_reason",
    "stop_reason",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
]


def test_generate_schema_has_its_columns() -> None:
    chosen = ["token_logprobs", "cumulative_logprob"]
    top = ["top_token_ids", "top_logprobs"]
    prompt_top = ["prompt_top_token_ids", "prompt_top_logprobs"]
    assert names() == [*ALWAYS, *COMPLETION, "seed"]
    assert names(logprobs=0) == [*ALWAYS, *COMPLETION, *chosen, "seed"]
    assert names(logprobs=3) == [*ALWAYS, *COMPLETION, *chosen, *top, "seed"]
    assert names(prompt_logprobs=0) == [*ALWAYS, *COMPLETION, "prompt_logprobs", "seed"]
    assert names(logprobs=1, prompt_logprobs=1) == [
        *ALWAYS,
        *COMPLETION,
        *chosen,
        *top,
        "prompt_logprobs",
        *prompt_top,
        "seed",
    ]


def test_types_of_the_contract() -> None:
    schema = output_schema(
        INPUTS, task=GENERATE, logprobs=5, prompt_logprobs=5, choices=False
    ).arrow
    assert schema.field("id").type == pa.int64()
    assert schema.field("subject").type == pa.dictionary(pa.int32(), pa.string())
    assert (
        schema.field("sample_index").type
        == schema.field("attempts").type
        == schema.field("prompt_tokens").type
        == pa.int32()
    )
    assert schema.field("token_ids").type == pa.list_(pa.int32())
    assert (
        schema.field("token_logprobs").type
        == schema.field("prompt_logprobs").type
        == pa.list_(pa.float32())
    )
    assert schema.field("top_token_ids").type == pa.list_(pa.list_(pa.int32()))
    assert schema.field("prompt_top_logprobs").type == pa.list_(pa.list_(pa.float32()))
    assert schema.field("cumulative_logprob").type == pa.float64()
    assert schema.field("seed").type == pa.int64()
    assert schema.metadata == {VERSION_KEY: SCHEMA_VERSION.encode()}


@pytest.mark.parametrize("task", [SCORE, PERPLEXITY])
def test_score_schema_has_its_columns(task: Task) -> None:
    expected = [
        *ALWAYS,
        "prompt_tokens",
        "cached_tokens",
        "loglikelihood",
        "is_greedy",
        "scored_tokens",
    ]
    assert names(task=task, logprobs=0) == expected
    one = output_schema(INPUTS, task=task, logprobs=None, prompt_logprobs=None, choices=False).arrow
    many = output_schema(INPUTS, task=task, logprobs=None, prompt_logprobs=None, choices=True).arrow
    kinds = {"loglikelihood": pa.float64(), "is_greedy": pa.bool_(), "scored_tokens": pa.int32()}
    for name, kind in kinds.items():
        assert one.field(name).type == kind
        assert many.field(name).type == pa.list_(kind)


@pytest.mark.parametrize("task", TASKS.values())
def test_output_columns_differ_from_pass_through_columns(task: Task) -> None:
    widest = output_schema(INPUTS, task=task, logprobs=2, prompt_logprobs=2, choices=True)
    assert set(widest.arrow.names) - {"subject"} == task_columns(task)


def test_scored_tokens_are_reserved_only_where_they_are_written() -> None:
    names = {"scored_token_ids", "scored_logprobs", "scored_top_token_ids", "scored_top_logprobs"}
    assert not names & task_columns(SCORE)
    assert names <= task_columns(SCORE, token_logprobs=True)


def test_boundary_chars_are_reserved_only_where_they_are_written() -> None:
    assert "boundary_chars" not in task_columns(SCORE)
    assert "boundary_chars" in task_columns(SCORE, boundary_chars=True)
    schema = output_schema(
        INPUTS, task=SCORE, logprobs=0, prompt_logprobs=None, choices=True, boundary_chars=True
    )
    assert schema.arrow.field("boundary_chars").type == pa.list_(pa.int32())
