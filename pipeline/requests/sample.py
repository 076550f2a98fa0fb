"""A sample of the requests of a run: the first rows of some shards, spread over the input."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from actors.protocol.messages import Completion, Request
from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input.columns import InputSchema
from pipeline.input.reader import read_rows
from pipeline.records import PromptRow, Shard, ShardNotice, UnreadableShard
from pipeline.requests.rules import RequestRules
from pipeline.requests.tokenize import to_requests
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import Task

SAMPLED_SHARDS = 8
SAMPLED_ROWS = 128  # the first ones of each sampled shard
# of one shard, where texts of any length are split into windows: some seconds of the tokenizer
SAMPLED_CHARS = 1_000_000
CHARS_PER_TOKEN = 4  # of a prompt that is token ids


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
    reader = SampleReader(rules)
    requests: list[Request] = []
    failed = 0
    first_error = ""
    unreadable: DatasetError | None = None
    rows = reader.rows(sampled, schema, storage.DEFAULT_CLIENT)
    for item in to_requests(rows, task, tokenizer, rules):
        if isinstance(item, UnreadableShard):
            unreadable = unreadable or item.error
        elif isinstance(item, Request):
            requests.append(item)
        elif isinstance(item, Completion) and item.error_code is not None:
            first_error = first_error or f"row {item.row_id}: {item.error_message}"
            failed += 1

    row_count = sum(shard.rows for shard in sampled) - reader.left_out
    return RequestSample(row_count, failed, first_error, tuple(requests), unreadable)


class SampleReader:
    """Reads sampled shards; of texts that are split into windows some `SAMPLED_CHARS` per shard.

    The first row of a shard is always read.
    """

    def __init__(self, rules: RequestRules) -> None:
        """Nothing is left out yet."""
        self._is_bounded = rules.overflow == "window"
        self.left_out = 0  # rows of the sample beyond SAMPLED_CHARS

    def rows(
        self, shards: Sequence[Shard], schema: InputSchema, client: storage.Client
    ) -> Iterator[PromptRow | Completion | ShardNotice]:
        """Yields the rows, and what else `read_rows` yields.

        Raises:
            OutageError: storage does not answer.
        """
        return self.bounded(read_rows(shards, schema, client))

    def bounded(
        self, items: Iterable[PromptRow | Completion | ShardNotice]
    ) -> Iterator[PromptRow | Completion | ShardNotice]:
        """Yields the items without the rows of a shard beyond the bound."""
        shard = None
        chars = 0
        for item in items:
            if not self._is_bounded or not isinstance(item, PromptRow):
                yield item
                continue
            if item.ref.shard != shard:
                shard = item.ref.shard
                chars = 0
            if chars > SAMPLED_CHARS:
                self.left_out += 1
                continue
            chars += _prompt_chars(item)
            yield item


def _prompt_chars(row: PromptRow) -> int:
    """Returns the characters of a prompt; of token ids an estimate, of other values none."""
    if isinstance(row.prompt, str):
        return len(row.prompt)
    if hasattr(row.prompt_token_ids, "__len__"):
        return CHARS_PER_TOKEN * len(row.prompt_token_ids)
    return 0


def sampled_shards(shards: Sequence[Shard], rows_of_shard: int = SAMPLED_ROWS) -> list[Shard]:
    """Returns up to `SAMPLED_SHARDS` of `shards`, each with its first rows."""
    step = max(1, len(shards) // SAMPLED_SHARDS)
    return [shard.head(rows_of_shard) for shard in shards[::step][:SAMPLED_SHARDS]]
