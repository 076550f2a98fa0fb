"""What is committed in a run folder, read once when a run starts and once when it ends.

A committed part is the only record of finished work. What remains is the plan less this state.
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import ConfigError
from pipeline.input import formats
from pipeline.output.run_folder import RunFolder, check_fingerprint, check_part
from pipeline.records import Shard

CONCURRENT_READS = 16


@dataclass(frozen=True, slots=True)
class RunState:
    """What was committed in a run folder at one moment.

    Attributes:
        committed: numbers of the committed shards, of all partitions.
        finished: whether `_SUCCESS` exists.
        failed_rows: of the shards whose failures were read, those with any: by number, the rows
            (within the shard) of which at least one sample failed.
    """

    committed: frozenset[int]
    finished: bool
    failed_rows: Mapping[int, tuple[int, ...]]

    @property
    def failed_row_count(self) -> int:
        """Failed rows in the shards whose failures were read."""
        return sum(map(len, self.failed_rows.values()))

    def committed_of(self, shards: Collection[Shard]) -> list[Shard]:
        """Returns those of `shards` that are committed."""
        return [shard for shard in shards if shard.number in self.committed]


def read_state(
    folder: RunFolder,
    shards: Sequence[Shard],
    fingerprint: str,
    *,
    failures_in: Collection[Shard] = (),
) -> RunState:
    """Reads the state of a run folder.

    One listing, whatever the number of shards, also of a finished run: its parts may have been
    removed. One footer is read, to be sure that the parts are this run's (`check_run` has compared
    the rest), and the footers of the parts in `failures_in`, with two narrow columns of those that
    hold errors.

    Args:
        folder: output folder.
        shards: the plan, of all partitions.
        fingerprint: of this run.
        failures_in: shards whose failed rows are read, where they are committed.

    Raises:
        ConfigError: the folder holds parts of another run.
        DatasetError: a part is damaged.
    """
    planned = frozenset(shard.number for shard in shards)
    finished = folder.finished()
    committed = folder.committed()
    unplanned = committed - planned
    if unplanned:
        raise ConfigError(
            f"{folder.part_url(min(unplanned))} does not belong to this run of {len(planned)} "
            "shards; choose another --output"
        )
    if committed:
        check_part(folder, min(committed), fingerprint)
    to_read = [shard for shard in failures_in if shard.number in committed]
    return RunState(committed, finished, _failed_rows(folder, to_read, fingerprint))


def partition_of(shards: Sequence[Shard], partition: tuple[int, int]) -> list[Shard]:
    """Returns the shards of partition (I, N): those with number ≡ I mod N."""
    index, count = partition
    return [shard for shard in shards if shard.number % count == index]


def remaining(
    shards: Sequence[Shard],
    state: RunState,
    *,
    partition: tuple[int, int] = (0, 1),
    retry_failed: bool = False,
) -> tuple[Shard, ...]:
    """Returns the shards of a partition that are still to do, in order.

    Args:
        shards: the plan, of all partitions.
        state: of the run folder.
        partition: (I, N): shards with number ≡ I mod N.
        retry_failed: return committed shards with failed rows, too, with `only` naming these rows;
            `state` has their failures.
    """
    todo = []
    for shard in partition_of(shards, partition):
        if shard.number not in state.committed:
            todo.append(shard)
        elif retry_failed and shard.number in state.failed_rows:
            todo.append(replace(shard, only=state.failed_rows[shard.number]))
    return tuple(sorted(todo, key=lambda shard: shard.number))


def finish(folder: RunFolder, shards: Sequence[Shard], committed: frozenset[int]) -> bool:
    """Marks the run as complete if every shard, of all partitions, is committed.

    Every driver calls it at its end, with what it listed after its own last commit: the driver
    that commits last sees every shard.

    Returns:
        Whether the run is complete; False while other drivers are not.
    """
    if any(shard.number not in committed for shard in shards):
        return False
    folder.client.put_if_absent(folder.success_url, b"")  # another driver may have been as fast
    return True


def failed_rows(part: pa.Table) -> tuple[int, ...]:
    """Returns the rows, within the shard, of which at least one sample failed.

    `part`: the columns `sample_index` and `status` of a part. Rows are in order, each with its
    samples from 0 on.
    """
    row_of_sample = np.cumsum(part["sample_index"].to_numpy() == 0) - 1
    failed = pc.equal(part["status"], pa.scalar("error")).to_numpy()
    return tuple(np.unique(row_of_sample[failed]).tolist())


def _failed_rows(
    folder: RunFolder, shards: Sequence[Shard], fingerprint: str
) -> dict[int, tuple[int, ...]]:
    def read(shard: Shard) -> tuple[int, ...]:
        return _failed_rows_of(folder, shard.number, fingerprint)

    with ThreadPoolExecutor(CONCURRENT_READS) as pool:
        rows_by_shard = zip(shards, pool.map(read, shards), strict=True)
        return {shard.number: rows for shard, rows in rows_by_shard if rows}


def _failed_rows_of(folder: RunFolder, number: int, fingerprint: str) -> tuple[int, ...]:
    url = folder.part_url(number)
    with formats.open_parquet(url, client=folder.client) as parquet:
        check_fingerprint(url, parquet.metadata, fingerprint)
        if is_without_errors(parquet.metadata):
            return ()
        table = parquet.read(columns=["sample_index", "status"])
    return failed_rows(table)


def is_without_errors(metadata: pq.FileMetaData) -> bool:
    """Whether the statistics of the column `status` show that it holds `ok` only."""
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            if column.path_in_schema != "status":
                continue
            statistics = column.statistics
            if statistics is None or not statistics.has_min_max:
                return False
            if statistics.min != "ok" or statistics.max != "ok":
                return False
    return True
