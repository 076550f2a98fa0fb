"""Writes rows of older runs into parts: a part as it is, or single rows of several parts."""

import json

import numpy as np
import pyarrow as pa

from pipeline.input import formats
from pipeline.output.conversion import convert_table
from pipeline.output.provenance import join_metadata
from pipeline.output.publication import to_parquet
from pipeline.output.reuse.footer import (
    COPIED_FROM,
    COPIED_ROWS,
    ROW_DIGESTS,
    digests_metadata,
    with_copied_rows,
)
from pipeline.output.reuse.older_parts import OlderPart
from pipeline.output.run_folder import RunFolder, check_part
from pipeline.output.schema import OutputSchema
from pipeline.records import CopiedRows, OlderRows, Shard
from pipeline.storage.redaction import redact_credentials


def copied_table(schema: OutputSchema, passthrough: pa.Table, older: OlderRows) -> pa.Table:
    """Returns output rows of an older run with the input columns of this one.

    Args:
        schema: of the parts of this run.
        passthrough: of the input rows that are copied.
        older: their output rows.
    """
    samples = np.repeat(np.arange(passthrough.num_rows), older.samples)
    inputs = passthrough.select(schema.passthrough.names).take(samples)
    columns = list(inputs.columns)
    names = list(inputs.column_names)
    for column in schema.columns:
        columns.append(older.table[column.name])
        names.append(column.name)
    return convert_table(pa.table(columns, names=names), schema.arrow)


def publish_rows(
    folder: RunFolder,
    schema: OutputSchema,
    fingerprint: str,
    shard: Shard,
    passthrough: pa.Table,
    copied: CopiedRows,
) -> bool:
    """Creates the part of a shard all of whose rows are copied.

    Args:
        folder: of this run.
        schema: of the parts of this run.
        fingerprint: of this run.
        shard: to write.
        passthrough: of all rows of the shard.
        copied: where older runs have the rows.

    Returns:
        Whether this call created it; False: another driver has.

    Raises:
        ConfigError: another run has written the part.
        DatasetError: a part cannot be read, or the new one cannot be written.
    """
    older = copied.parts.take(copied.locations)
    table = copied_table(schema.with_fingerprint(fingerprint), passthrough, older)
    footer = with_copied_rows({}, older) | digests_metadata(copied.digests)
    return _publish(folder, fingerprint, shard, to_parquet(table, footer, schema.encodings))


def publish_part(
    folder: RunFolder,
    schema: OutputSchema,
    fingerprint: str,
    shard: Shard,
    part: OlderPart,
) -> bool:
    """Creates the part of a shard from the part that an older run has for the same rows.

    Its table is taken as it is. Its file is written anew, because its metadata has the fingerprint
    of the run.

    Args:
        folder: of this run.
        schema: of the parts of this run; `part` has the same columns.
        fingerprint: of this run.
        shard: to write.
        part: of the older run.

    Returns:
        Whether this call created it; False: another driver has.

    Raises:
        ConfigError: another run has written the part.
        DatasetError: the older part cannot be read, or the new one cannot be written.
    """
    with formats.open_parquet(part.url, client=part.folder.client) as parquet:
        older = parquet.read()
        metadata = parquet.metadata.metadata or {}
    table = convert_table(older, schema.with_fingerprint(fingerprint).arrow)
    footer = join_metadata([part.footer])
    footer[COPIED_ROWS] = str(shard.rows)
    footer[COPIED_FROM] = json.dumps([redact_credentials(part.folder.url)])
    digests = metadata.get(ROW_DIGESTS.encode())
    if digests is not None:
        footer[ROW_DIGESTS] = digests.decode()
    return _publish(folder, fingerprint, shard, to_parquet(table, footer, schema.encodings))


def _publish(folder: RunFolder, fingerprint: str, shard: Shard, content: bytes) -> bool:
    created = folder.client.put_if_absent(folder.part_url(shard.number), content)
    if not created:
        check_part(folder, shard.number, fingerprint)
    return created
