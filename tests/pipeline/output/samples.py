"""Finished samples whose every value depends on their address, and their passthrough columns."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from actors.protocol.messages import Completion, RowRef, logprobs, token_ids
from pipeline.output.schema import OutputSchema, output_schema
from pipeline.records import OutputRow
from pipeline.tasks import GENERATE


@dataclass(frozen=True)
class Passthrough:
    passthrough: pa.Schema


def schema_of(passthrough: pa.Table, **options: Any) -> OutputSchema:
    chosen = {"task": GENERATE, "logprobs": 2, "prompt_logprobs": 2, "choices": False, **options}
    return output_schema(Passthrough(passthrough.schema), **chosen)


def completed(ref: RowRef, tokens: int = 2, prompt: int = 3, top: int = 2) -> Completion:
    """A completion whose every value depends on its address."""
    base = ref.row * 10 + ref.sample
    return Completion(
        ref=ref,
        token_ids=token_ids([base + index for index in range(tokens)]),
        finish_reason="length",
        prompt_tokens=prompt,
        cached_tokens=1,
        token_logprobs=logprobs([-0.5 * index - base for index in range(tokens)]),
        top_token_ids=token_ids(list(range(tokens * top))),
        top_logprobs=logprobs([-float(index) for index in range(tokens * top)]),
        prompt_logprobs=logprobs([-float(index) for index in range(prompt - 1)]),
        prompt_top_token_ids=token_ids(list(range((prompt - 1) * top))),
        prompt_top_logprobs=logprobs([-1.0] * ((prompt - 1) * top)),
        seed=base,
    )


def row(ref: RowRef, **options: Any) -> OutputRow:
    return OutputRow(completed(ref, **options), f"text {ref.row}.{ref.sample}")


def failed(ref: RowRef, code: str = "engine_crash") -> OutputRow:
    return OutputRow(Completion.failed(ref, code, f"row {ref.row} did not work", attempts=3), None)


def ids(count: int, first: int = 0) -> pa.Table:
    return pa.table(
        {
            "id": [f"id-{index}" for index in range(first, first + count)],
            "x": list(range(first, first + count)),
        }
    )
