"""Joins the stages of the pipeline: Parquet row ranges in, committed shards out.

The only module that depends on more than one stage.

    Shard → PromptRow → Request → Batch → (replicas) → Completion → OutputRow → CommittedShard

Every stage is a generator and nothing happens before the last one is drawn from: memory is bounded
by what replicas hold, the open buckets and the open shards.
"""

import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from actors.protocol.messages import Batch, Completion, Request
from pipeline import storage
from pipeline.dispatch.buckets import BucketConfig, fill_batches
from pipeline.dispatch.dispatcher import DispatchConfig, run_batches
from pipeline.dispatch.limits import NO_LIMITS, Limits
from pipeline.dispatch.replicas import Replicas
from pipeline.errors import DatasetError
from pipeline.input.columns import InputSchema
from pipeline.input.reader import read_rows
from pipeline.monitoring.progress import Progress
from pipeline.output.writer import CommittedShard, Writer
from pipeline.records import OutputRow, PromptRow, Shard, ShardNotice, UnreadableShard
from pipeline.requests.detokenize import to_output_rows
from pipeline.requests.join_windows import join_windows
from pipeline.requests.rules import RequestRules
from pipeline.requests.tokenize import to_requests
from pipeline.requests.tokenizer import Tokenizer
from pipeline.tasks import Task

Item = TypeVar("Item")
Items: TypeAlias = Iterator[Item | ShardNotice]  # what travels from one stage to the next

NAMED_REASONS = 3
# between two collections of garbage; Python's own 700 are for programs that hold less
NEW_OBJECTS = 50_000


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What the stages need, chosen in jobs."""

    task: Task
    schema: InputSchema
    tokenizer: Tokenizer | None
    rules: RequestRules
    buckets: BucketConfig
    dispatch: DispatchConfig
    replicas: Replicas
    writer: Writer
    progress: Progress
    interrupted: Callable[[], bool] = lambda: False
    limits: Limits = NO_LIMITS
    client: storage.Client = storage.RUN_CLIENT  # reads the input
    # in digests of rows, stands for what all rows share; None: parts get no digests
    row_context: bytes | None = None


def run(shards: Sequence[Shard], pipeline: Pipeline) -> Generator[CommittedShard]:
    """Runs the rows of `shards` and yields each shard when it is committed.

    Raises:
        InterruptedRunError: `interrupted` became true; what was complete is committed.
        LimitReachedError: a limit ends the run before its last row; what was complete is committed.
        ErrorBudgetError: too many rows failed; what was complete is committed.
        ModelError: no replica can work.
        DatasetError: shards of the input could not be read (all others are committed), or a part
            could not be written.
        OutageError: object storage did not answer within the retry window; what was complete is
            committed.
        CommitError: exactly once was broken.
    """
    c = pipeline
    unreadable = UnreadableShards()
    samples = c.progress.samples
    rows: Items[PromptRow | Completion] = samples.prompts(read_rows(shards, c.schema, c.client))
    requests: Items[Request | Completion] = to_requests(
        rows, c.task, c.tokenizer, c.rules, c.row_context
    )
    batches: Items[Batch | Completion] = fill_batches(
        requests, c.buckets, concurrency=lambda: c.replicas.up * c.dispatch.in_flight
    )
    completions: Items[Completion] = run_batches(
        batches, c.replicas, c.dispatch, c.progress, c.interrupted, c.limits
    )
    counted: Items[Completion] = c.progress.count(completions)
    complete: Items[Completion] = join_windows(counted)
    finished: Items[OutputRow] = to_output_rows(complete, c.task, c.tokenizer)
    output_rows: Items[OutputRow] = samples.results(finished)

    with rare_collections():
        for item in c.writer.write(output_rows):
            if isinstance(item, UnreadableShard):
                unreadable.add(item)
                continue
            c.progress.shard_committed(item.shard, item.rows, sum(item.errors.values()))
            yield item
    unreadable.check()


@contextmanager
def rare_collections() -> Iterator[None]:
    """Looks for garbage more rarely within the block.

    A run holds some hundred thousand small objects that refer to nothing behind them: requests in
    flight, rows of open shards. Looking through them again and again took a fifth of the driver's
    time and found nothing.
    """
    usual = gc.get_threshold()
    gc.set_threshold(NEW_OBJECTS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@dataclass(slots=True)
class UnreadableShards:
    """Shards that could not be read. The run continues without them and fails at its end."""

    shards: int = 0
    rows: int = 0
    reasons: list[str] = field(default_factory=list)  # distinct, at most NAMED_REASONS

    def add(self, unreadable: UnreadableShard) -> None:
        """Counts a shard."""
        self.shards += 1
        self.rows += unreadable.shard.rows
        reason = str(unreadable.error)
        if reason not in self.reasons and len(self.reasons) < NAMED_REASONS:
            self.reasons.append(reason)

    def check(self) -> None:
        """Raises DatasetError if there are any."""
        if self.shards:
            raise DatasetError(
                f"{self.rows} rows in {self.shards} shards could not be read: "
                f"{'; '.join(self.reasons)}. All others are "
                "committed; restore the files as they were and repeat the command, or start a new "
                "run without them"
            )
