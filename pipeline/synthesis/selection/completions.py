"""Samples of a run over prompts, with their prompts, block by block in input order.

A block is one shard of completions, or the rejected prompts of one part, which come before its
shards. Shards are committed in any order; a reader that takes blocks in order reads the same in
any case.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.protocol.plain_text import bare
from actors.protocol.sampling import MAX_SAMPLES
from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input import formats
from pipeline.input.shards import plan_shards
from pipeline.output.input_content import run_input_keys
from pipeline.output.run_folder import RunFolder
from pipeline.records import Shard
from pipeline.synthesis.columns import COMPLETED, ERROR_COLUMNS, SAMPLES
from pipeline.synthesis.prompts.folder import PromptPart, PromptsFolder
from pipeline.synthesis.prompts.seed_rows import ROW, kept_columns
from pipeline.synthesis.selection.samples import LOGPROB_PLACES

OUTPUT_COLUMNS = (
    "id",
    "sample_index",
    "text",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "cumulative_logprob",
    "seed",
    "status",
    "error_code",
    "error_message",
)


@dataclass(frozen=True, slots=True)
class Block:
    """Samples that are selected together."""

    part: PromptPart
    shard: Shard | None  # None: the rejected prompts of the part


class Completions:
    """The samples of a run over prompts."""

    def __init__(
        self,
        prompts: PromptsFolder,
        url: str,
        client: storage.Client = storage.DEFAULT_CLIENT,
    ) -> None:
        """Reads the description of the run and the footers of its prompts.

        Raises:
            DatasetError: prompts or run do not exist, or do not belong together.
        """
        self.prompts = prompts
        self.folder = RunFolder(url, client)
        self.run: dict[str, Any] = self.folder.description()
        self.parts = prompts.parts()
        files = [part.file for part in self.parts]
        keys = self.run["fingerprint_keys"]
        is_generated = keys.get("task") == "generate"
        if not is_generated or keys.get("input") != run_input_keys(self.folder, files):
            raise DatasetError(
                f"{bare(url)} is no run over the prompts in "
                f"{bare(prompts.url)}: it lists other files; give two folders that "
                "belong together"
            )

        config = self.run["config"]
        shards = plan_shards(files, config["shard_rows"], config["limit"])
        self.blocks = tuple(_blocks(self.parts, shards))

    @property
    def n(self) -> int:
        """Samples of a row without its own number."""
        return int(self.run["config"]["n"])

    @property
    def logprobs(self) -> bool:
        """Whether the run wrote log-probs of the generated tokens."""
        return self.run["config"]["logprobs"] is not None

    @property
    def seed_rows(self) -> int:
        """Seed rows from which the prompts were made."""
        return sum(part.file.rows + part.rejected_rows for part in self.parts)

    @property
    def kept(self) -> pa.Schema:
        """`id` and the columns of the seeds that pass through to the data set."""
        return kept_columns(self._request_schema)

    def is_committed(self, block: Block) -> bool:
        """Returns whether a block can be read."""
        if block.shard is None:
            return True
        return self.folder.client.stat(self.folder.part_url(block.shard.number)) is not None

    def rejected_prompts(self, block: Block) -> pa.Table:
        """Returns the rows of a block of rejected prompts, with their number of samples."""
        table = self.prompts.rejected(block.part)
        expected = self._expected_samples(table)
        return table.append_column(SAMPLES, pa.array(expected, pa.int32()))

    def samples(self, block: Block) -> pa.Table:
        """Returns the samples of a block of completions, with the columns of samples.py.

        The column `samples` is the number of samples that a row stands for.

        Raises:
            DatasetError: the part is missing, damaged, or has other rows than the prompts.
        """
        assert block.shard is not None
        url = self.folder.part_url(block.shard.number)
        with formats.open_parquet(url, client=self.folder.client) as parquet:
            names = [name for name in OUTPUT_COLUMNS if name in parquet.schema_arrow.names]
            outputs = parquet.read(names)
        prompts = self._read_prompts(block.part, block.shard)

        # index of the prompt of each sample: the first sample of a row has index 0
        prompt_index = np.cumsum(outputs["sample_index"].to_numpy() == 0) - 1
        same_rows = prompt_index.size > 0 and prompt_index[-1] + 1 == prompts.num_rows
        if not same_rows or not outputs["id"].equals(prompts["id"].take(prompt_index)):
            raise DatasetError(
                f"{bare(url)} has other rows than "
                f"{bare(block.part.file.url)}, of which it was made; restore the "
                "folders as they were"
            )
        prompts = prompts.take(prompt_index)

        # A row that could not run has one output row for all of its samples.
        is_only_sample = np.bincount(prompt_index)[prompt_index] == 1
        has_failed = pc.not_equal(outputs["status"], pa.scalar("ok")).to_numpy()
        represented = np.where(is_only_sample & has_failed, self._expected_samples(prompts), 1)
        samples = _joined(outputs, prompts, self.kept)
        return samples.append_column(SAMPLES, pa.array(represented, pa.int32()))

    @cached_property
    def _request_schema(self) -> pa.Schema:
        return formats.parquet_schema(self.parts[0].file.url, self.folder.client)

    def _read_prompts(self, part: PromptPart, shard: Shard) -> pa.Table:
        file = part.file
        client = self.folder.client
        schema = self._request_schema
        source = formats.SourceFile(file.url, file.version, file.size)
        with formats.open_cursor(source, (), schema, client=client) as cursor:
            return cursor.take(shard.first_row, shard.rows).passthrough

    def _expected_samples(self, rows: pa.Table) -> list[int]:
        """Returns the number of samples of each row; one, if its own `n` is not valid."""
        if "n" not in rows.column_names:
            return [self.n] * rows.num_rows
        counts = []
        for n in rows["n"].to_pylist():
            if n is None:
                counts.append(self.n)
            elif isinstance(n, int) and 1 <= n <= MAX_SAMPLES:
                counts.append(n)
            else:
                counts.append(1)
        return counts


def _blocks(parts: tuple[PromptPart, ...], shards: tuple[Shard, ...]) -> Iterator[Block]:
    shards_by_url = {}
    for url, shards_of_file in groupby(shards, key=lambda shard: shard.url):
        shards_by_url[url] = list(shards_of_file)
    for part in parts:
        if part.rejected_rows:
            yield Block(part, None)
        for shard in shards_by_url.get(part.file.url, ()):
            yield Block(part, shard)


def _joined(outputs: pa.Table, prompts: pa.Table, kept: pa.Schema) -> pa.Table:
    """Returns the samples with the columns of samples.py, but for `samples`."""
    columns: dict[str, Any] = dict(zip(outputs.column_names, outputs.columns, strict=True))
    for name in ("id", "template", "prompt"):
        columns[name] = prompts[name]
    columns["completion"] = outputs["text"]
    columns["mean_logprob"] = _mean_logprobs(outputs)
    for name in ERROR_COLUMNS:
        columns[name] = outputs[name.removeprefix("_")]
    if ROW in prompts.column_names:
        row: Any = prompts[ROW].combine_chunks()
        columns |= dict(zip(kept.names[1:], row.flatten(), strict=True))

    errors = [pa.field(name, pa.string()) for name in ERROR_COLUMNS]
    schema = pa.schema([*kept, *COMPLETED, *errors])
    return pa.table([columns[field.name] for field in schema], schema=schema)


def _mean_logprobs(outputs: pa.Table) -> Any:
    """Returns the mean log-prob per generated token, rounded; null without tokens."""
    if "cumulative_logprob" not in outputs.column_names:
        return pa.nulls(outputs.num_rows, pa.float64())
    tokens = outputs["completion_tokens"]
    no_tokens = pa.scalar(None, pa.int32())
    divisor: Any = pc.if_else(pc.greater(tokens, pa.scalar(0)), tokens, no_tokens)
    mean = pc.divide(outputs["cumulative_logprob"], divisor.cast(pa.float64()))
    # the sum turns the -0.0 that rounding leaves into 0.0
    return pc.add(pc.round(mean, LOGPROB_PLACES), 0.0)
