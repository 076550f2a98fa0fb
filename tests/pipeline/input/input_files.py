"""Input files of the tests, and what the reader makes of them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actors.protocol.messages import Completion
from pipeline.input.columns import InputColumns, InputSchema, inspect_columns
from pipeline.input.listing import list_input
from pipeline.input.reader import read_rows
from pipeline.input.shards import plan_shards
from pipeline.records import PromptRow, Shard, ShardOpened, UnreadableShard
from pipeline.tasks import GENERATE

COLUMNS = InputColumns(GENERATE)


def write(path: Path, columns: dict[str, Any], **options: Any) -> str:
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def write_jsonl(path: Path, *lines: object) -> str:
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
        + b"\n"
    )
    return str(path)


def read_all(
    url: str, columns: InputColumns = COLUMNS, shard_rows: int = 3, limit: int | None = None
) -> tuple[list[PromptRow | Completion], pa.Table, InputSchema]:
    """Plans and reads; checks on the way that each shard is announced before its first row."""
    files = list_input(url, limit)
    schema = inspect_columns(files, columns)
    tables: dict[int, pa.Table] = {}
    rows = []
    for item in read_rows(plan_shards(files, shard_rows, limit), schema):
        if isinstance(item, ShardOpened):
            tables[item.shard.number] = item.passthrough
            continue
        assert not isinstance(item, UnreadableShard)
        assert item.ref.shard == max(tables)
        rows.append(item)
    return rows, pa.concat_tables(tables.values()), schema


def read_error(shard: Shard, schema: InputSchema) -> str:
    """Returns why the shard cannot be read."""
    (item,) = read_rows([shard], schema)
    assert isinstance(item, UnreadableShard)
    assert item.shard == shard
    return str(item.error)
