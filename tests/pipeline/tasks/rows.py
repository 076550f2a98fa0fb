"""Rows, and what tasks make of them."""

from typing import Any

from actors.protocol.messages import Completion, Request, RowRef
from actors.protocol.sampling import SamplingParams
from pipeline.records import PromptRow
from pipeline.requests.rules import RequestRules
from pipeline.requests.tokenize import to_requests
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import GENERATE, Task

RULES = RequestRules(420, 64, defaults=SamplingParams(max_tokens=8))


def only_item(
    row: PromptRow, tokenizer: Tokenizer | None, task: Task = GENERATE, rules: RequestRules = RULES
) -> Request | Completion:
    [item] = to_requests([row], task, tokenizer, rules)
    return item


def prompt_row(**values: Any) -> PromptRow:
    return PromptRow(RowRef(3, 5), "id-5", **values)
