"""Folder of request rows: written from seeds shard by shard, resumed, and read again.

run.json                    what the prompts depend on, with a fingerprint
rejected/part-00017.parquet rows without a prompt; created before the part of the same number
data/part-00017.parquet     request rows of one shard of seeds; created once: the commit of both
_SUCCESS                    every shard is committed
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from actors.protocol.plain_text import bare
from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input import formats
from pipeline.output.publication import publish_once, to_parquet
from pipeline.output.run_folder import PART_NAME, RunFolder
from pipeline.output.run_state import finish
from pipeline.output.schema import FINGERPRINT_KEY
from pipeline.records import InputFile, Shard
from pipeline.synthesis.prompts.builder import Prompts

PARALLEL_READS = 16
CONTENT = "prompts"  # named in messages about a part that holds something else


@dataclass(frozen=True, slots=True)
class PromptPart:
    """One committed part."""

    number: int
    file: InputFile  # request rows, as in the listing of an input
    rejected_rows: int


@dataclass(frozen=True, slots=True)
class PromptsFolder:
    """Names and contents of the folder at `url`."""

    url: str
    client: storage.Client = storage.DEFAULT_CLIENT

    @property
    def folder(self) -> RunFolder:
        """The run folder of the same URL."""
        return RunFolder(self.url, self.client)

    @property
    def rejected_folder_url(self) -> str:
        """Folder of the rejected rows."""
        return storage.join(self.url, "rejected")

    def rejected_url(self, number: int) -> str:
        """URL of the rejected rows of a part, if it has any."""
        return storage.join(self.rejected_folder_url, f"part-{number:05d}.parquet")

    def write(
        self,
        todo: Sequence[Shard],
        shards: Sequence[Shard],
        built: Iterator[Prompts],
        fingerprint: str,
    ) -> Iterator[Shard]:
        """Commits the prompts of each shard of `todo`, yields it, and marks the folder as complete.

        Args:
            todo: shards that are not committed yet.
            shards: all shards.
            built: request and rejected rows of each shard of `todo`, in their order.
            fingerprint: fingerprint of the prompts, written into every part.

        Raises:
            ConfigError: a part exists and holds something else.
            DatasetError: a part cannot be written.
        """
        for shard, prompts in zip(todo, built, strict=True):
            if prompts.rejected.num_rows:
                rejected = _encoded(prompts.rejected, fingerprint)
                publish_once(self.rejected_url(shard.number), rejected, CONTENT)
            requests = _encoded(prompts.requests, fingerprint)
            publish_once(self.folder.part_url(shard.number), requests, CONTENT)
            yield shard
        finish(self.folder, shards, self.folder.committed())

    def parts(self) -> tuple[PromptPart, ...]:
        """Returns all parts, in order; reads their footers.

        Raises:
            DatasetError: the folder does not hold a complete set of prompts.
        """
        if not self.folder.finished():
            raise DatasetError(
                f"{bare(self.url)} holds no complete prompts; make them with "
                "generate_dataset.py prompts, or repeat the command that was interrupted"
            )

        files = self._part_files(self.folder.data_url)
        rejected_files = self._part_files(self.rejected_folder_url)
        with ThreadPoolExecutor(PARALLEL_READS) as pool:
            rows = list(pool.map(self._count_rows, files.values()))
            rejected_counts = list(pool.map(self._count_rows, rejected_files.values()))

        rejected_rows = dict(zip(rejected_files, rejected_counts, strict=True))
        parts = []
        for (number, stored), count in zip(files.items(), rows, strict=True):
            file = InputFile(stored.url, stored.size, stored.version, count)
            parts.append(PromptPart(number, file, rejected_rows.get(number, 0)))
        return tuple(parts)

    def rejected(self, part: PromptPart) -> pa.Table:
        """Returns the rows of a part's shard without a prompt; the part has some."""
        with formats.open_parquet(self.rejected_url(part.number), client=self.client) as parquet:
            table: pa.Table = parquet.read()
        return table.replace_schema_metadata(None)

    def _part_files(self, url: str) -> dict[int, storage.StoredObject]:
        """Returns the parts in a folder by number, in the order of the listing."""
        parts = {}
        for stored in self.client.list_objects(url):
            match = PART_NAME.fullmatch(stored.url.rsplit("/", 1)[-1])
            if match:
                parts[int(match[1])] = stored
        return parts

    def _count_rows(self, stored: storage.StoredObject) -> int:
        return formats.count_rows(stored.url, client=self.client)


def _encoded(table: pa.Table, fingerprint: str) -> bytes:
    return to_parquet(table.replace_schema_metadata({FINGERPRINT_KEY: fingerprint.encode()}))
