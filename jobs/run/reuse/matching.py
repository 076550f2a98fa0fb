"""Which rows of a run older runs have: parts of unchanged files, then rows by their digests.

Reads and tokenizes the rows of files that have changed or are new, and starts no replica.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jobs.run.plan import Plan
from jobs.run.reuse.older_runs import OlderRuns
from pipeline import storage
from pipeline.input.reader import read_rows
from pipeline.output.reuse.footer import DIGEST_TYPE
from pipeline.output.reuse.older_parts import NOT_FOUND, OlderPart
from pipeline.records import CopiedRows, Shard, ShardOpened
from pipeline.requests.tokenize import to_requests


@dataclass(frozen=True, slots=True)
class ShardMatch:
    """What older runs have of a shard.

    Attributes:
        shard: with the rows that are run and those that are copied.
        part: with all of its rows, of an unchanged file; None: there is none.
        opened: its input columns, where rows of it were found; None: no row was.
    """

    shard: Shard
    part: OlderPart | None = None
    opened: ShardOpened | None = None

    @property
    def rows_copied(self) -> int:
        """Rows that are copied."""
        if self.part is not None:
            return self.shard.rows
        if self.shard.copied is None:
            return 0
        return self.shard.copied.rows.size

    @property
    def rows_computed(self) -> int:
        """Rows that are run."""
        if self.shard.only is not None:
            return len(self.shard.only)
        return self.shard.rows - self.rows_copied


def match_shards(
    plan: Plan,
    older: OlderRuns,
    shards: Sequence[Shard],
    context: bytes,
    client: storage.Client = storage.DEFAULT_CLIENT,
) -> Iterator[ShardMatch]:
    """Yields each shard once: those with a part of an unchanged file first, then all others.

    Args:
        plan: of the run.
        older: the runs that rows are copied from.
        shards: to run.
        context: stands in digests of rows for the settings of the run.
        client: reads the input.
    """
    to_read: list[Shard] = []
    for shard in shards:
        part = older.unchanged.get(shard.number)
        if shard.only is not None:  # committed, and some of its rows failed
            yield ShardMatch(shard)
        elif part is not None:
            yield ShardMatch(shard, part)
        elif older.rows.is_empty:
            yield ShardMatch(shard)
        else:
            to_read.append(shard)

    readable: set[int] = set()
    for opened in _read_digests(plan, to_read, context, client):
        readable.add(opened.shard.number)
        yield _match_rows(opened, older)
    for shard in to_read:
        if shard.number not in readable:
            yield ShardMatch(shard)  # the run reports why it cannot be read


def _read_digests(
    plan: Plan, shards: Sequence[Shard], context: bytes, client: storage.Client
) -> Iterator[ShardOpened]:
    """Yields shards whose rows have all become requests: their digests are complete."""
    rows = read_rows(shards, plan.schema, client)
    complete: ShardOpened | None = None
    for item in to_requests(rows, plan.task, plan.tokenizer, plan.rules, context):
        if not isinstance(item, ShardOpened):
            continue
        if complete is not None:
            yield complete
        complete = item
    if complete is not None:
        yield complete


def _match_rows(opened: ShardOpened, older: OlderRuns) -> ShardMatch:
    shard = opened.shard
    digests = np.frombuffer(bytes(opened.digests or b""), DIGEST_TYPE)
    locations = older.rows.find(digests.tobytes())
    rows = np.flatnonzero(locations != NOT_FOUND)
    if not rows.size:
        return ShardMatch(shard)

    computed = np.flatnonzero(locations == NOT_FOUND)
    copied = CopiedRows(rows, locations[rows], older.rows, digests[rows].tobytes())
    matched = replace(shard, only=tuple(computed.tolist()), copied=copied)
    return ShardMatch(matched, opened=opened)
