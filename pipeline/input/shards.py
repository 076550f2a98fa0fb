"""Cuts the input of a run into shards: all of its rows, the first ones, or a random sample."""

import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.records import InputFile, Shard, total_rows


@dataclass(frozen=True, slots=True)
class RowSample:
    """A random sample of rows, each with the same chance; the same seed gives the same rows."""

    rows: int
    seed: int

    def positions(self, total: int) -> list[int]:
        """Returns the sampled rows of `total` rows, ascending; all of them if there are no more.

        Floyd's algorithm (Bentley, Programming Pearls, CACM 30(9), 1987) takes memory for the
        sample alone. Of Python's generator only `random()` gives the same sequence in all versions.
        """
        count = min(self.rows, total)
        generator = random.Random(self.seed)
        chosen: set[int] = set()
        for highest in range(total - count, total):
            position = int(generator.random() * (highest + 1))
            if position in chosen:
                position = highest
            chosen.add(position)
        return sorted(chosen)


def plan_shards(
    files: Sequence[InputFile],
    shard_rows: int,
    limit: int | None = None,
    sample: RowSample | None = None,
) -> tuple[Shard, ...]:
    """Cuts the first `limit` rows (None: all) into shards of `shard_rows` rows.

    A shard never spans files. With a sample, shards have its rows alone.
    """
    if shard_rows < 1 or (limit is not None and limit < 1):
        raise ConfigError(
            f"--shard-rows and --limit must be at least 1, got {shard_rows} and {limit}"
        )
    rows_to_plan = total_rows(files)
    if limit is not None:
        rows_to_plan = limit

    sampled: list[int] | None = None
    if sample is not None:
        sampled = sample.positions(min(rows_to_plan, total_rows(files)))

    shards: list[Shard] = []
    first_of_file = 0
    for file in files:
        file_rows = min(file.rows, rows_to_plan)
        rows_to_plan -= file_rows
        if sampled is None:
            ranges = _consecutive(file_rows, shard_rows)
        else:
            begin = bisect_left(sampled, first_of_file)
            end = bisect_left(sampled, first_of_file + file_rows)
            rows_of_file = [position - first_of_file for position in sampled[begin:end]]
            ranges = _sampled(rows_of_file, shard_rows)
        first_of_file += file_rows
        for shard_range in ranges:
            shard = Shard(
                number=len(shards),
                url=file.url,
                first_row=shard_range.first_row,
                rows=shard_range.rows,
                version=file.version,
                size=file.size,
                partition=file.partition,
                offsets=shard_range.offsets,
            )
            shards.append(shard)
    return tuple(shards)


@dataclass(frozen=True, slots=True)
class _ShardRange:
    """Rows of a file that become a shard."""

    first_row: int
    rows: int
    offsets: tuple[int, ...] | None = None


def _consecutive(file_rows: int, shard_rows: int) -> Iterator[_ShardRange]:
    for first_row in range(0, file_rows, shard_rows):
        yield _ShardRange(first_row, min(shard_rows, file_rows - first_row))


def _sampled(rows: Sequence[int], shard_rows: int) -> Iterator[_ShardRange]:
    for index in range(0, len(rows), shard_rows):
        shard_part = rows[index : index + shard_rows]
        first_row = shard_part[0]
        offsets = tuple(row - first_row for row in shard_part)
        yield _ShardRange(first_row, len(shard_part), offsets)
