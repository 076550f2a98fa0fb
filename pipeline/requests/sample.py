"""A sample of the requests of a run: the first rows of some shards, spread over the input."""

from collections.abc import Sequence
from dataclasses import dataclass

from actors.protocol.messages import Completion, Request
from pipeline.errors import DatasetError
from pipeline.input.columns import InputSchema
from pipeline.input.reader import read_rows
from pipeline.records import Shard, UnreadableShard
from pipeline.requests.rules import RequestRules
from pipeline.requests.tokenize import to_requests
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import Task

SAMPLED_SHARDS = 8
SAMPLED_ROWS = 128  # the first ones of each sampled shard


@dataclass(frozen=True, slots=True)
class RequestSample:
    """Requests of sampled rows."""

    rows: int  # that were sampled
    failed: int  # rows that cannot run
    first_error: str  # id of the first of these rows, and why it cannot run; empty without one
    requests: tuple[Request, ...]
    unreadable: DatasetError | None  # why a sampled shard cannot be read


def sample_requests(
    shards: Sequence[Shard],
    schema: InputSchema,
    task: Task,
    tokenizer: Tokenizer | None,
    rules: RequestRules,
    *,
    rows_of_shard: int = SAMPLED_ROWS,
) -> RequestSample:
    """Reads and tokenizes a sample, in the stages that a run uses."""
    sampled = sampled_shards(shards, rows_of_shard)
    requests: list[Request] = []
    failed = 0
    first_error = ""
    unreadable: DatasetError | None = None
    for item in to_requests(read_rows(sampled, schema), task, tokenizer, rules):
        if isinstance(item, UnreadableShard):
            unreadable = unreadable or item.error
        elif isinstance(item, Request):
            requests.append(item)
        elif isinstance(item, Completion) and item.error_code is not None:
            first_error = first_error or f"row {item.row_id}: {item.error_message}"
            failed += 1

    rows = sum(shard.rows for shard in sampled)
    return RequestSample(rows, failed, first_error, tuple(requests), unreadable)


def sampled_shards(shards: Sequence[Shard], rows_of_shard: int = SAMPLED_ROWS) -> list[Shard]:
    """Returns up to `SAMPLED_SHARDS` of `shards`, each with its first rows."""
    step = max(1, len(shards) // SAMPLED_SHARDS)
    return [shard.head(rows_of_shard) for shard in shards[::step][:SAMPLED_SHARDS]]
