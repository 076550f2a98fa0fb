"""The host side of a run without Ray: reader, tokenizer, buckets, dispatch over fakes, writer.

Also a program:

python -m tests.host_side INPUT OUTPUT I/N SEED [PAUSE_S] [retry]     runs one driver to its end;
prints what it published
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from actors.protocol.events import Assignment
from actors.protocol.sampling import SamplingParams
from actors.protocol.size_buckets import prompt_size_buckets
from pipeline import storage
from pipeline.dispatch.buckets import BucketConfig
from pipeline.dispatch.dispatcher import DispatchConfig
from pipeline.input.columns import InputColumns, InputSchema, inspect_columns
from pipeline.input.listing import list_input
from pipeline.input.shards import plan_shards
from pipeline.monitoring.progress import Progress
from pipeline.output.run_folder import RunFolder, check_run, fingerprint, input_keys
from pipeline.output.run_state import finish, read_state, remaining
from pipeline.output.schema import output_schema
from pipeline.output.writer import CommittedShard, Writer
from pipeline.requests.rules import RequestRules
from pipeline.run import Pipeline, run
from pipeline.tasks import GENERATE
from tests.fakes import FakeReplicas

ROWS, SHARD_ROWS, BAD_EVERY = 40, 6, 13


def write_input(path: Path, rows: int = ROWS) -> Path:
    """Writes prompts of which every 13th is empty, that is, an error row."""
    ids = [[row % 30 + 1] * (row % 20 + 1) if row % BAD_EVERY else [] for row in range(rows)]
    table = pa.table(
        {
            "id": [f"r{row}" for row in range(rows)],
            "prompt_token_ids": pa.array(ids, pa.list_(pa.int32())),
        }
    )
    pq.write_table(table, path, row_group_size=9)
    return path


def make_pipeline(
    schema: InputSchema,
    folder: RunFolder,
    mark: str,
    replicas: FakeReplicas,
    progress: Progress,
    interrupted: Callable[[], bool],
) -> Pipeline:
    """Returns the stages as all runs of these tests have them."""
    written = output_schema(schema, task=GENERATE, logprobs=0, prompt_logprobs=None, choices=False)
    return Pipeline(
        task=GENERATE,
        schema=schema,
        tokenizer=None,
        rules=RequestRules(100, 64, defaults=SamplingParams(max_tokens=3, n=2, seed=5)),
        buckets=BucketConfig(prompt_size_buckets(64), 256, max_bucket_age_rows=16),
        dispatch=DispatchConfig(2, max_attempts=50, poll_s=0.0),
        replicas=replicas,
        writer=Writer(folder, written, mark),
        progress=progress,
        interrupted=interrupted,
        client=folder.client,
    )


def drive(
    source: Path | str,
    output: str,
    replicas: FakeReplicas,
    *,
    partition: tuple[int, int] = (0, 1),
    retry_failed: bool = False,
    max_error_rows: int | None = None,
    rows_before_early_stop: int = 1000,
    interrupted: Callable[[], bool] = lambda: False,
    client: storage.Client = storage.RUN_CLIENT,
) -> Iterator[CommittedShard]:
    """Runs what is left of the data set as a driver does, from `check_run` to `_SUCCESS`."""
    files = list_input(str(source))
    schema = inspect_columns(files, InputColumns(GENERATE))
    shards, folder, keys = (
        plan_shards(files, SHARD_ROWS),
        RunFolder(output, client),
        {"input": input_keys(files)},
    )
    check_run(folder, keys, {})
    mark = fingerprint(keys)
    progress = Progress(
        sum(shard.rows for shard in shards),
        max_error_rows=max_error_rows,
        rows_before_early_stop=rows_before_early_stop,
    )
    joined = make_pipeline(schema, folder, mark, replicas, progress, interrupted)
    folder.remove_abandoned()
    state = read_state(folder, shards, mark, failures_in=shards if retry_failed else ())
    todo = remaining(shards, state, partition=partition, retry_failed=retry_failed)
    yield from run(todo, joined)
    finish(folder, shards, folder.committed())


def rows_of(output: str) -> list[dict[str, object]]:
    """Returns the rows of all parts in order, read through storage."""
    listed = storage.list_objects(storage.join(output, "data"))
    parts = [stored.url for stored in listed if not stored.url.rsplit("/", 1)[-1].startswith(".")]
    return [
        row
        for part in parts
        for row in pq.read_table(pa.BufferReader(storage.read(part)[0])).to_pylist()
    ]


class SlowReplicas(FakeReplicas):
    """Fakes that take some time, so that drivers overlap."""

    pause_s = 0.0

    def submit(self, assignment: Assignment) -> None:
        time.sleep(self.pause_s)
        super().submit(assignment)


def main(arguments: list[str]) -> None:
    """Runs a driver in a process of its own."""
    source, output, partition, seed = arguments[:4]
    replicas = SlowReplicas(2, seed=int(seed), bad_luck=0.02)
    replicas.pause_s = float(arguments[4]) if len(arguments) > 4 else 0.0
    index, count = map(int, partition.split("/"))
    sys.stdout.write("started\n")
    for committed in drive(
        source, output, replicas, partition=(index, count), retry_failed="retry" in arguments
    ):
        if committed.published:
            sys.stdout.write(f"{committed.shard}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
