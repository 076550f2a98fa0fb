"""Writes finished samples, in any order, as one Parquet object per shard; each is created once.

Does not depend on prompts and retries.

A shard is open from its `ShardOpened`, which has its number of rows, until its last sample arrives.
Then it is sorted, built, compressed in memory and published create-only, while further samples are
received. Memory is bounded by the open shards.

If another driver has published a shard, its fingerprint is read and the run continues. Exactly once
is checked: a duplicate or unexpected sample, or a shard that is open at the end, raises an error.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actors.protocol.messages import ReplicaInfo, RowRef
from pipeline.errors import CommitError, DatasetError
from pipeline.output.columns import error_counts
from pipeline.output.conversion import convert_table
from pipeline.output.merge import merge_rows
from pipeline.output.provenance import part_metadata
from pipeline.output.publication import to_parquet
from pipeline.output.reuse.copies import copied_table
from pipeline.output.reuse.footer import (
    DIGEST_TYPE,
    digests_metadata,
    merged_footer,
    with_copied_rows,
)
from pipeline.output.run_folder import RunFolder, check_part
from pipeline.output.schema import OutputSchema
from pipeline.records import (
    DIGEST_BYTES,
    CopiedRows,
    OutputRow,
    Shard,
    ShardNotice,
    ShardOpened,
    UnreadableShard,
)

COMMITS_AT_ONCE = 2  # encoded and uploaded beside the stream
COMMITS_WAITING = 4  # beyond these the stream waits: memory stays bounded when storage is slow
# interval of checks for ended commits while no shard is complete: a check takes a lock
ROWS_BETWEEN_LOOKS = 64


@dataclass(frozen=True, slots=True)
class CommittedShard:
    """A shard that is now on storage.

    Counts are of the samples that this driver ran.
    """

    shard: int
    rows: int  # input rows
    samples: int  # output rows
    errors: Mapping[str, int]  # samples by error code
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    published: bool  # False: another driver had committed it before


@dataclass(slots=True)
class _OpenShard:
    opened: ShardOpened
    passthrough: pa.Table  # one row per row that is awaited, ascending
    position: dict[int, int]  # row within the shard -> row of `passthrough`
    version: str | None  # of the committed part that is to be merged with
    missing: int  # samples still awaited, as far as known: one for a row of which nothing came yet
    samples: dict[int, int] = field(default_factory=dict)  # of each row that was seen
    rows: dict[tuple[int, int], OutputRow] = field(default_factory=dict)  # by (row, sample)

    @property
    def shard(self) -> Shard:
        return self.opened.shard

    @property
    def digests(self) -> bytes:
        """Of all rows of the shard; zeros for rows without one."""
        return bytes(self.opened.digests or bytes(DIGEST_BYTES * self.shard.rows))


class Writer:
    """Gathers the samples of open shards and commits each shard when it is complete."""

    def __init__(
        self,
        folder: RunFolder,
        schema: OutputSchema,
        fingerprint: str,
        replicas: Callable[[], Iterable[ReplicaInfo]] = tuple,
    ) -> None:
        """Opens no shard yet.

        Args:
            folder: of the run.
            schema: as from `output_schema`.
            fingerprint: of the run; in the metadata of every part.
            replicas: returns the replicas that computed rows so far; described in the metadata of a
                part when it is committed.
        """
        self._folder = folder
        self._fingerprint = fingerprint
        self._replicas = replicas
        self._schema = schema.with_fingerprint(fingerprint)
        self._open: dict[int, _OpenShard] = {}

    def _open_shard(self, opened: ShardOpened) -> None:
        """Opens a shard.

        Raises:
            CommitError: the shard is open already, or has no rows.
            DatasetError: rows of a committed part are to be run again and the part is not there.
        """
        shard = opened.shard
        passthrough = opened.passthrough
        rows = range(shard.rows) if shard.only is None else sorted(shard.only)
        if shard.copied is not None:
            passthrough = passthrough.take(pa.array(rows, pa.int64()))
        if shard.number in self._open or not rows or len(rows) != passthrough.num_rows:
            raise CommitError(
                f"{shard} cannot be opened with {passthrough.num_rows} rows: already open, or "
                "another number expected"
            )
        version = None
        if shard.only is not None and shard.copied is None:
            stored = self._folder.client.stat(self._folder.part_url(shard.number))
            if stored is None:
                raise DatasetError(
                    f"{self._folder.part_url(shard.number)} has vanished; run again without "
                    "--retry-failed"
                )
            version = stored.version
        position = dict(zip(rows, range(len(rows)), strict=True))
        self._open[shard.number] = _OpenShard(
            opened, passthrough, position, version, missing=len(rows)
        )

    def write(
        self, items: Iterable[OutputRow | ShardNotice]
    ) -> Iterator[CommittedShard | UnreadableShard]:
        """Takes samples in any order and yields each shard once it is committed.

        A shard's `ShardOpened` precedes its samples; an `UnreadableShard` passes through. When
        `items` raises, shards that were complete by then are committed and yielded first.

        Raises:
            CommitError: a shard was opened twice or with other rows than it has; a sample came
                twice, belongs to no open shard, or is missing at the end.
            DatasetError: a part could not be written, or rows of a committed part are to be run
                again and the part is not there.
            ConfigError: another run has written the part.
        """
        commits: deque[Future[CommittedShard]] = deque()
        with ThreadPoolExecutor(COMMITS_AT_ONCE, thread_name_prefix="commit") as pool:
            try:
                for number, item in enumerate(items):
                    if isinstance(item, ShardOpened):
                        self._open_shard(item)
                        continue
                    if isinstance(item, UnreadableShard):
                        yield item
                        continue
                    complete = self._take(item)
                    if complete is not None:
                        commits.append(pool.submit(self._commit, complete))
                    elif number % ROWS_BETWEEN_LOOKS:
                        continue
                    while commits and (commits[0].done() or len(commits) > COMMITS_WAITING):
                        yield commits.popleft().result()
            except Exception:
                yield from [commit.result() for commit in commits if commit.exception() is None]
                raise
            while commits:
                yield commits.popleft().result()
        if self._open:
            number, shard = next(iter(self._open.items()))
            raise CommitError(
                f"the stream ended with {len(self._open)} shards open; shard {number} still awaits "
                f"{shard.missing} samples or more"
            )

    def _take(self, row: OutputRow) -> _OpenShard | None:
        """Stores one sample; returns its shard if that is complete now."""
        ref = row.completion.ref
        shard = self._open.get(ref.shard)
        if shard is None:
            raise CommitError(
                f"unexpected result for {ref}: shard {ref.shard} is not open, because it was never "
                "read or is complete"
            )
        _check_ref(ref, shard)
        if ref.row not in shard.samples:
            shard.samples[ref.row] = ref.samples
            shard.missing += ref.samples - 1
        shard.rows[ref.row, ref.sample] = row
        shard.missing -= 1
        return self._open.pop(ref.shard) if not shard.missing else None

    def _commit(self, shard: _OpenShard) -> CommittedShard:
        rows: list[OutputRow] = []
        row_numbers: list[int] = []  # within the shard
        for row_number, sample in sorted(shard.rows):
            rows.append(shard.rows[row_number, sample])
            row_numbers.append(row_number)

        passthrough = shard.passthrough
        if len(rows) != passthrough.num_rows:  # several samples per row
            positions = [shard.position[row_number] for row_number in row_numbers]
            passthrough = passthrough.take(pa.array(positions))
        table = self._schema.table(rows, passthrough)
        if shard.shard.copied is not None:
            published = self._put_with_copies(shard, table, row_numbers, shard.shard.copied)
        elif shard.shard.only is None:
            published = self._folder.client.put_if_absent(
                self._folder.part_url(shard.shard.number), self._encoded(shard, table)
            )
        else:
            published = self._merge(shard, table, row_numbers)
        if not published:
            check_part(self._folder, shard.shard.number, self._fingerprint)
        return _summary(shard, rows, published)

    def _put_with_copies(
        self, shard: _OpenShard, computed: pa.Table, computed_rows: list[int], copied: CopiedRows
    ) -> bool:
        """Creates the part of a shard some of whose rows are copied from older runs.

        Args:
            shard: with the input columns of all rows.
            computed: output rows of the rows that ran.
            computed_rows: the row within the shard of each of them.
            copied: where older runs have the other rows.

        Returns:
            False: another driver has created the part.
        """
        older = copied.parts.take(copied.locations)
        passthrough = shard.opened.passthrough.take(copied.rows)
        rows = copied_table(self._schema, passthrough, older)
        rows_of_copies = np.repeat(copied.rows, older.samples)
        table = merge_rows(rows, computed, rows_of_copies, computed_rows)

        footer = part_metadata(self._replicas())
        digests = np.frombuffer(shard.digests, DIGEST_TYPE).copy()
        digests[copied.rows] = np.frombuffer(copied.digests, DIGEST_TYPE)
        metadata = with_copied_rows(footer, older) | digests_metadata(digests.tobytes())
        url = self._folder.part_url(shard.shard.number)
        return self._folder.client.put_if_absent(
            url, to_parquet(table, metadata, self._schema.encodings)
        )

    def _merge(self, shard: _OpenShard, rerun: pa.Table, rerun_rows: list[int]) -> bool:
        """Replaces the rerun rows of the committed part.

        Args:
            shard: with `version`, the one of the part when the shard was opened.
            rerun: output rows of the rows that ran again.
            rerun_rows: the row within the shard of each output row.

        Returns:
            False: another driver has replaced the part meanwhile.
        """
        client = self._folder.client
        url = self._folder.part_url(shard.shard.number)
        data, version = client.read(url)
        if version != shard.version:
            return False
        check_part(self._folder, shard.shard.number, self._fingerprint)

        parquet = pq.ParquetFile(pa.BufferReader(data))
        footer: dict[str, str] = {}
        for name, value in (parquet.metadata.metadata or {}).items():
            footer[name.decode()] = value.decode()
        committed = convert_table(parquet.read(), self._schema.arrow)
        committed_rows = np.cumsum(committed["sample_index"].to_numpy() == 0) - 1
        merged = merge_rows(committed, rerun, committed_rows, rerun_rows)
        expected_rows = np.isin(committed_rows, rerun_rows, invert=True).sum() + rerun.num_rows
        if merged.num_rows != expected_rows or pc.any(pc.is_null(merged["status"])).as_py():
            raise CommitError(f"merging the rows that ran again into {url} lost rows")
        metadata = merged_footer(footer, part_metadata(self._replicas()), shard.digests)
        return client.replace_if(url, to_parquet(merged, metadata, self._schema.encodings), version)

    def _encoded(self, shard: _OpenShard, table: pa.Table) -> bytes:
        """Returns the Parquet file of a part; its footer has what computed it and the digests.

        Digests stand for results of what the footer describes: there are none without it.
        """
        footer = part_metadata(self._replicas())
        if footer:
            footer |= digests_metadata(shard.digests)
        return to_parquet(table, footer, self._schema.encodings)


def _check_ref(ref: RowRef, shard: _OpenShard) -> None:
    if ref.row not in shard.position:
        raise CommitError(f"unexpected result for {ref}: shard {ref.shard} has no such row")
    if (ref.row, ref.sample) in shard.rows:
        raise CommitError(f"duplicate result for {ref}")
    if not 0 <= ref.sample < ref.samples or shard.samples.get(ref.row, ref.samples) != ref.samples:
        raise CommitError(
            f"unexpected result for {ref}: expected {shard.samples.get(ref.row)} samples as in "
            "another sample of its row"
        )


def _summary(shard: _OpenShard, rows: list[OutputRow], published: bool) -> CommittedShard:
    completions = [row.completion for row in rows]
    prompt_tokens = 0
    completion_tokens = 0
    cached_tokens = 0
    for completion in completions:
        prompt_tokens += completion.prompt_tokens or 0
        completion_tokens += len(completion.token_ids)
        cached_tokens += completion.cached_tokens or 0

    return CommittedShard(
        shard=shard.shard.number,
        rows=len(shard.position),
        samples=len(rows),
        errors=error_counts(completions),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cached_tokens=cached_tokens,
        published=published,
    )
