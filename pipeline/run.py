"""The corridor, joined: Parquet row ranges in, committed shards out. The only file that knows more than one stage.

    Shard → PromptRow → Request → Batch → (replicas) → Completion → OutputRow → CommittedShard

Every stage is a generator and nothing happens before the last one is drawn from: memory is bounded by what replicas hold, the
open buckets and the open shards.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.buckets import BucketConfig, fill_batches
from pipeline.columns import InputSchema
from pipeline.dispatch import DispatchConfig, Replicas, run_batches
from pipeline.progress import Progress
from pipeline.reader import read_rows
from pipeline.records import Shard
from pipeline.tokenizer import RequestRules, Tokenizer, to_output_rows, to_requests
from pipeline.writer import CommittedShard, Writer


@dataclass(frozen=True, slots=True)
class Corridor:
    """What the stages need, chosen in jobs."""

    schema: InputSchema
    tokenizer: Tokenizer | None
    rules: RequestRules
    buckets: BucketConfig
    dispatch: DispatchConfig
    replicas: Replicas
    writer: Writer
    progress: Progress
    interrupted: Callable[[], bool] = lambda: False


def run(shards: Sequence[Shard], corridor: Corridor) -> Iterator[CommittedShard]:
    """Runs the rows of `shards` and yields each shard when it is committed.

    Raises:
        InterruptedRunError: `interrupted` became true; what was complete is committed.
        ErrorBudgetError: too many rows failed; what was complete is committed.
        ModelError: no replica can work.
        DatasetError, CommitError: input or output failed while the run went on.
    """
    c = corridor
    rows = read_rows(shards, c.schema, c.writer.open)
    requests = to_requests(rows, c.tokenizer, c.rules)
    batches = fill_batches(requests, c.buckets, lanes=lambda: c.replicas.up * c.dispatch.in_flight)
    completions = run_batches(batches, c.replicas, c.dispatch, c.progress, c.interrupted)
    samples = to_output_rows(c.progress.count(completions), c.tokenizer)
    for committed in c.writer.write(samples):
        c.progress.shard_committed()
        yield committed
