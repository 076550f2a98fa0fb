"""A folder of request rows: made from seeds shard by shard, resumed, and read again.

It knows no templates.

run.json                    what the prompts were made of, with a fingerprint
rejected/part-00017.parquet rows of which no prompt could be made; written before the part it
belongs to data/part-00017.parquet     request rows of one shard of seeds, created once: the commit
of both _SUCCESS                    every shard is there
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from pipeline import storage
from pipeline.errors import DatasetError
from pipeline.input import formats
from pipeline.output.publication import publish_once, to_parquet
from pipeline.output.run_folder import PART_NAME, RunFolder
from pipeline.output.run_state import finish
from pipeline.output.schema import FINGERPRINT_KEY
from pipeline.records import InputFile, Shard
from pipeline.storage.redaction import redact_credentials
from pipeline.synthesis.prompts.builder import Prompts

READ_AT_ONCE = 16
WHAT = "prompts"


@dataclass(frozen=True, slots=True)
class PromptPart:
    """One committed part."""

    number: int
    file: InputFile  # request rows, as the listing of an input has them
    rejected_rows: int


@dataclass(frozen=True, slots=True)
class PromptsFolder:
    """Names and contents of the folder at `url`."""

    url: str
    client: storage.Client = storage.DEFAULT_CLIENT

    @property
    def folder(self) -> RunFolder:
        """The same as a run folder."""
        return RunFolder(self.url, self.client)

    def rejected_url(self, number: int) -> str:
        """Where the rejected rows of a part are, if it has any."""
        return storage.join(self.url, "rejected", f"part-{number:05d}.parquet")

    def write(
        self,
        todo: Sequence[Shard],
        shards: Sequence[Shard],
        made: Iterator[Prompts],
        mark: str,
        tell: Callable[[int], None],
    ) -> None:
        """Commits what `made` yields for each shard that is to do, and marks the folder as complete.

        Args:
            todo: shards that are not there yet.
            shards: all of them.
            made: request and rejected rows of each shard of `todo`, in their order.
            mark: fingerprint of the prompts; goes into every part.
            tell: called with the number of seed rows of each part.

        Raises:
            ConfigError: a part is there and holds something else.
            DatasetError: a part cannot be written.
        """
        for shard, prompts in zip(todo, made, strict=True):
            if prompts.rejected.num_rows:
                publish_once(self.rejected_url(shard.number), _marked(prompts.rejected, mark), WHAT)
            publish_once(self.folder.part_url(shard.number), _marked(prompts.requests, mark), WHAT)
            tell(shard.rows)
        finish(self.folder, shards, self.folder.committed())

    def parts(self) -> tuple[PromptPart, ...]:
        """Returns all parts, in order; reads their footers.

        Raises:
            DatasetError: the folder holds no complete set of prompts.
        """
        if not self.folder.finished():
            raise DatasetError(
                f"{redact_credentials(self.url)} holds no complete prompts; make them with "
                "generate_dataset.py prompts, or "
                "repeat the command that was interrupted"
            )
        found = [
            (number, stored)
            for stored in self.client.list_objects(self.folder.data_url)
            if (number := _number(stored.url)) is not None
        ]
        rejected = {
            _number(stored.url)
            for stored in self.client.list_objects(storage.join(self.url, "rejected"))
        }
        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            rows = list(
                pool.map(lambda each: formats.count_rows(each[1].url, client=self.client), found)
            )
            lost = list(
                pool.map(
                    lambda each: self._rejected_count(each[0]) if each[0] in rejected else 0, found
                )
            )
        return tuple(
            PromptPart(number, InputFile(stored.url, stored.size, stored.version, good), bad)
            for (number, stored), good, bad in zip(found, rows, lost, strict=True)
        )

    def rejected(self, part: PromptPart) -> pa.Table:
        """Returns the rows of a part's shard of which no prompt could be made; it has some."""
        with formats.open_parquet(self.rejected_url(part.number), client=self.client) as parquet:
            table: pa.Table = parquet.read()
        return table.replace_schema_metadata(None)

    def _rejected_count(self, number: int) -> int:
        return formats.count_rows(self.rejected_url(number), client=self.client)


def _marked(table: pa.Table, mark: str) -> bytes:
    return to_parquet(table.replace_schema_metadata({FINGERPRINT_KEY: mark.encode()}))


def _number(url: str) -> int | None:
    match = PART_NAME.fullmatch(url.rsplit("/", 1)[-1])
    return int(match[1]) if match else None
