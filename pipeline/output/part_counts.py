"""Counts the rows of committed parts: what is left of a run whose driver wrote no report."""

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.protocol.messages import RowRef
from pipeline.input import formats
from pipeline.monitoring.length_bins import length_bin
from pipeline.monitoring.logprob_bins import LogprobCounts
from pipeline.monitoring.progress import EXAMPLES, error_example
from pipeline.output.run_folder import RunFolder, check_fingerprint
from pipeline.output.run_state import failed_rows

COLUMNS = (
    "id",
    "sample_index",
    "status",
    "error_code",
    "error_message",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "scored_tokens",
    "finish_reason",
    "token_logprobs",
)


@dataclass(slots=True)
class PartCounts:
    """Sums over the samples of parts. Lengths are counted by `length_bin`."""

    failed_rows: int = 0  # with at least one failed sample
    prompt_tokens: int = 0  # with the scored ones, which are read, too
    completion_tokens: int = 0
    cached_tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # samples by code
    examples: dict[str, list[dict[str, object]]] = field(default_factory=dict)  # by code
    prompt_lengths: Counter[int] = field(default_factory=Counter)  # samples without an error
    completion_lengths: Counter[int] = field(default_factory=Counter)  # or scored tokens
    finish_reasons: Counter[str] = field(default_factory=Counter)  # samples without an error
    logprobs: LogprobCounts = field(default_factory=LogprobCounts)

    def add(self, shard: int, table: pa.Table) -> None:
        """Adds the samples of the part of a shard."""
        row_of_sample = np.cumsum(table["sample_index"].to_numpy() == 0) - 1
        is_error = pc.equal(table["status"], pa.scalar("error"))
        failed = table.append_column("row", pa.array(row_of_sample)).filter(is_error)
        self.errors.update(map(str, failed["error_code"].to_pylist()))
        self._add_examples(shard, failed)
        self.failed_rows += len(failed_rows(table))

        good = table.filter(pc.invert(is_error))
        prompt = _numbers(good, "prompt_tokens")
        completion = _numbers(good, "completion_tokens")
        scored = _numbers(good, "scored_tokens")
        self.prompt_tokens += int(prompt.sum() + scored.sum())
        self.completion_tokens += int(completion.sum())
        self.cached_tokens += int(_numbers(good, "cached_tokens").sum())
        _count_lengths(self.prompt_lengths, prompt)
        _count_lengths(self.completion_lengths, completion + scored)
        if "finish_reason" in good.column_names:
            reasons = good["finish_reason"].drop_null().to_pylist()
            self.finish_reasons.update(map(str, reasons))
        if "token_logprobs" in good.column_names:
            tokens = pc.list_flatten(good["token_logprobs"]).drop_null()
            self.logprobs.add(array("f", tokens.to_numpy().astype(np.float32).tobytes()))

    def _add_examples(self, shard: int, failed: pa.Table) -> None:
        codes: list[Any] = pc.unique(failed["error_code"]).to_pylist()
        for code in codes:
            examples = self.examples.setdefault(str(code), [])
            of_code = failed.filter(pc.equal(failed["error_code"], pa.scalar(code)))
            for sample in of_code.slice(0, EXAMPLES - len(examples)).to_pylist():
                ref = RowRef(shard, sample["row"], sample["sample_index"])
                examples.append(error_example(ref, sample["id"], sample["error_message"]))


def count_parts(folder: RunFolder, shards: Iterable[int], fingerprint: str) -> PartCounts:
    """Returns the counts of the parts of shards, which are read one after the other.

    Raises:
        ConfigError: another run has written a part.
        DatasetError: a part is missing or damaged.
    """
    counts = PartCounts()
    for shard in shards:
        url = folder.part_url(shard)
        with formats.open_parquet(url, client=folder.client) as parquet:
            check_fingerprint(url, parquet.metadata, fingerprint)
            names = [name for name in COLUMNS if name in parquet.schema_arrow.names]
            counts.add(shard, parquet.read(columns=names))
    return counts


def _count_lengths(bins: Counter[int], lengths: np.ndarray) -> None:
    distinct, samples = np.unique(lengths, return_counts=True)
    for length, count in zip(distinct.tolist(), samples.tolist(), strict=True):
        bins[length_bin(length)] += count


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """Returns a column as int64, null as 0, a list as the sum of its items; 0 if there is none."""
    if name not in table.column_names:
        return np.zeros(table.num_rows, np.int64)
    column: Any = table[name].combine_chunks()
    if not pa.types.is_list(column.type):
        numbers: np.ndarray = column.fill_null(0).to_numpy(zero_copy_only=False)
        return numbers.astype(np.int64)

    sums = np.zeros(table.num_rows, np.int64)
    items = pc.list_flatten(column).fill_null(0)
    np.add.at(sums, pc.list_parent_indices(column).to_numpy(), items.to_numpy())
    return sums
