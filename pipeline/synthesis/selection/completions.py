"""A folder of prompts and the run of the main job over them → samples with their prompts, block by block, in input order.

A block is one shard of completions, or the rejected prompts of one part, which stand before its
shards. Shards are committed in any order; whoever reads blocks in order sees the same, whichever
was finished first. It knows no rules.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.protocol.sampling import MAX_SAMPLES
from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input import formats
from pipeline.input.shards import plan_shards
from pipeline.output.run_folder import RunFolder, input_keys
from pipeline.records import Shard
from pipeline.storage.redaction import redact_credentials
from pipeline.synthesis.prompts.folder import PromptPart, PromptsFolder
from pipeline.synthesis.prompts.seed_rows import ROW, kept_columns
from pipeline.synthesis.selection.samples import COMPLETED, ERROR_COLUMNS, LOGPROB_PLACES, SAMPLES

ERRORS = tuple(name.removeprefix("_") for name in ERROR_COLUMNS)
OUTPUTS = (
    "id", "sample_index", "text", "finish_reason", "prompt_tokens", "completion_tokens", "cumulative_logprob", "seed", *ERRORS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Block:
    """What is judged together; `shard` is None for rejected prompts."""

    part: PromptPart
    shard: Shard | None


class Completions:
    """The samples of a run over prompts."""

    def __init__(
        self,
        prompts: PromptsFolder,
        url: str,
        client: storage.Client = storage.DEFAULT_CLIENT,
    ) -> None:
        """Reads what the run was, and the footers of its prompts.

        Raises:
            DatasetError: prompts or run are not there, or do not belong together.
        """
        self.prompts = prompts
        self.folder = RunFolder(url, client)
        self.run: dict[str, Any] = self.folder.description()
        self.parts = prompts.parts()
        files = [part.file for part in self.parts]
        keys = self.run["fingerprint_keys"]
        if keys.get("task") != "generate" or keys.get("input") != input_keys(files):
            raise DatasetError(
                f"{redact_credentials(url)} is no run over the prompts in "
                f"{redact_credentials(prompts.url)}: it lists other "
                "files; give two folders that belong together"
            )
        shards = plan_shards(files, self.run["config"]["shard_rows"], self.run["config"]["limit"])
        self.blocks = tuple(_blocks(self.parts, shards))

    @property
    def n(self) -> int:
        """Samples of a row that does not say otherwise."""
        return int(self.run["config"]["n"])

    @property
    def logprobs(self) -> bool:
        """Whether the run wrote log-probs of what it drew."""
        return self.run["config"]["logprobs"] is not None

    @property
    def seed_rows(self) -> int:
        """Seed rows that the prompts were made of."""
        return sum(part.file.rows + part.rejected_rows for part in self.parts)

    @property
    def kept(self) -> pa.Schema:
        """`id` and the columns of the seeds that pass through to the data set."""
        return kept_columns(self._request_schema)

    def committed(self, block: Block) -> bool:
        """Whether a block can be read."""
        return (
            block.shard is None
            or self.folder.client.stat(self.folder.part_url(block.shard.number)) is not None
        )

    def rejected_prompts(self, block: Block) -> pa.Table:
        """Returns the rows of a block of rejected prompts, with `samples`: how many each was to have."""
        table = self.prompts.rejected(block.part)
        return table.append_column(SAMPLES, self._expected(table))

    def samples(self, block: Block) -> pa.Table:
        """Returns the samples of a block of completions: the columns of samples.py, and how many samples each row stands for.

        Raises:
            DatasetError: the part is missing, damaged, or has other rows than the prompts.
        """
        assert block.shard is not None
        url = self.folder.part_url(block.shard.number)
        with formats.open_parquet(url, client=self.folder.client) as parquet:
            outputs = parquet.read([name for name in OUTPUTS if name in parquet.schema_arrow.names])
        prompts = self._prompts(block.part, block.shard)
        row = np.cumsum(outputs["sample_index"].to_numpy() == 0) - 1
        if (
            row.size == 0
            or row[-1] + 1 != prompts.num_rows
            or not outputs["id"].equals(prompts["id"].take(row))
        ):
            raise DatasetError(
                f"{redact_credentials(url)} has other rows than "
                f"{redact_credentials(block.part.file.url)}, of which it was "
                "made; restore the folders as they were"
            )
        prompts = prompts.take(row)
        # A row that could not run has one output row, whatever number of samples it was to have.
        alone = (np.bincount(row)[row] == 1) & pc.not_equal(
            outputs["status"], pa.scalar("ok")
        ).to_numpy()
        stands_for = np.where(alone, self._expected(prompts).to_numpy(), 1)
        return _joined(outputs, prompts, self.kept).append_column(
            SAMPLES, pa.array(stands_for, pa.int32())
        )

    @cached_property
    def _request_schema(self) -> pa.Schema:
        return formats.parquet_schema(self.parts[0].file.url, self.folder.client)

    def _prompts(self, part: PromptPart, shard: Shard) -> pa.Table:
        with formats.open_cursor(
            part.file.url,
            (),
            self._request_schema,
            part.file.version,
            self.folder.client,
        ) as cursor:
            return cursor.take(shard.first_row, shard.rows).passthrough

    def _expected(self, rows: pa.Table) -> Any:
        """Returns how many samples each row was to have; one, where its own `n` cannot be used."""
        if "n" not in rows.column_names:
            return pa.array(np.full(rows.num_rows, self.n), pa.int32())
        own = [self.n if n is None else n for n in rows["n"].to_pylist()]
        return pa.array(
            [n if isinstance(n, int) and 1 <= n <= MAX_SAMPLES else 1 for n in own], pa.int32()
        )


def _blocks(parts: tuple[PromptPart, ...], shards: tuple[Shard, ...]) -> Iterator[Block]:
    of_part = {url: list(some) for url, some in groupby(shards, key=lambda shard: shard.url)}
    for part in parts:
        if part.rejected_rows:
            yield Block(part, None)
        for shard in of_part.get(part.file.url, ()):
            yield Block(part, shard)


def _joined(outputs: pa.Table, prompts: pa.Table, kept: pa.Schema) -> pa.Table:
    """Returns the samples with the columns of samples.py."""
    made: dict[str, Any] = {name: outputs[name] for name in outputs.column_names}
    made |= {name: prompts[name] for name in ("id", "template", "prompt")}
    made |= {"completion": outputs["text"], "mean_logprob": _mean_logprobs(outputs)}
    made |= {f"_{name}": outputs[name] for name in ERRORS}
    if ROW in prompts.column_names:
        row: Any = prompts[ROW].combine_chunks()
        made |= dict(zip(kept.names[1:], row.flatten(), strict=True))
    fields = [
        *kept,
        *(pa.field(name, kind) for name, kind in COMPLETED),
        *(pa.field(name, pa.string()) for name in ERROR_COLUMNS),
    ]
    return pa.table([made[field.name] for field in fields], schema=pa.schema(fields))


def _mean_logprobs(outputs: pa.Table) -> Any:
    if "cumulative_logprob" not in outputs.column_names:
        return pa.nulls(outputs.num_rows, pa.float64())
    tokens = outputs["completion_tokens"]
    some: Any = pc.if_else(pc.greater(tokens, pa.scalar(0)), tokens, pa.scalar(None, pa.int32()))
    mean = pc.divide(outputs["cumulative_logprob"], some.cast(pa.float64()))
    # the sum turns the -0.0 that rounding leaves into 0.0
    return pc.add(pc.round(mean, LOGPROB_PLACES), 0.0)
