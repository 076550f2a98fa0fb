"""Cuts the input of a run into shards."""

from collections.abc import Sequence

from pipeline.errors import ConfigError
from pipeline.records import InputFile, Shard, total_rows


def plan_shards(
    files: Sequence[InputFile], shard_rows: int, limit: int | None = None
) -> tuple[Shard, ...]:
    """Cuts the first `limit` rows (None: all) into shards of `shard_rows` rows.

    A shard never spans files.
    """
    if shard_rows < 1 or (limit is not None and limit < 1):
        raise ConfigError(
            f"--shard-rows and --limit must be at least 1, got {shard_rows} and {limit}"
        )
    rows_to_plan = total_rows(files)
    if limit is not None:
        rows_to_plan = limit

    shards: list[Shard] = []
    for file in files:
        file_rows = min(file.rows, rows_to_plan)
        rows_to_plan -= file_rows
        for first_row in range(0, file_rows, shard_rows):
            shard = Shard(
                number=len(shards),
                url=file.url,
                first_row=first_row,
                rows=min(shard_rows, file_rows - first_row),
                version=file.version,
                size=file.size,
                partition=file.partition,
            )
            shards.append(shard)
    return tuple(shards)
