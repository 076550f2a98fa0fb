"""What a selection accepts and rejects → the folder of a data set, ready to be trained on or uploaded as it is.

    run.json                     what it was made of, with a fingerprint; created first
    data/train-00000.parquet     accepted rows; data/<column>=<value>/train-00000.parquet with partition columns
    rejected/rejected-00000.parquet
    statistics.json, README.md   figures, and the data card
    sources.json                 which versions of the completions were read
    _SUCCESS                     last

Every object is created once. A selection that was killed is repeated from its beginning: it finds
what it has written before.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.output.publication import publish_once
from pipeline.output.run_folder import RunFolder
from pipeline.storage.redaction import redact_credentials
from pipeline.synthesis.dataset import card
from pipeline.synthesis.dataset.card import CardTexts
from pipeline.synthesis.dataset.files import DataFiles
from pipeline.synthesis.selection.completions import Completions
from pipeline.synthesis.selection.selection import Outcome, Selection
from pipeline.synthesis.selection.selection_pass import Fold

REJECTED_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True)
class Layout:
    """How accepted rows are cut into files."""

    file_bytes: int
    partition_by: tuple[str, ...] = ()


class DatasetFolder:
    """The data set at `url`."""

    def __init__(self, url: str) -> None:
        self.folder = RunFolder(url)

    @property
    def url(self) -> str:
        """Where it is."""
        return self.folder.url

    @property
    def data_url(self) -> str:
        """Accepted rows."""
        return self.folder.data_url

    @property
    def card_url(self) -> str:
        """The data card."""
        return storage.join(self.url, "README.md")

    def statistics(self) -> dict[str, Any]:
        """Returns what statistics.json tells. Raises DatasetError when it is not there."""
        found: dict[str, Any] = json.loads(
            storage.read(storage.join(self.url, "statistics.json"))[0]
        )
        return found

    def write(
        self,
        completions: Completions,
        selection: Selection,
        layout: Layout,
        texts: CardTexts,
        until: int | None,
    ) -> dict[str, Any]:
        """Judges all samples, writes the data set and returns its statistics.

        Args:
            completions: the run.
            selection: a fresh one.
            layout: of the files.
            texts: of the card.
            until: number of blocks that count; None: all.

        Raises:
            DatasetError: shards are missing or damaged, or an object cannot be written.
            ConfigError: an object is there and holds something else.
        """
        accepted = DataFiles(
            self.url, "data", "train", selection.schema, layout.file_bytes, layout.partition_by
        )
        rejected = DataFiles(
            self.url, "rejected", "rejected", selection.rejected_schema, REJECTED_BYTES
        )

        def take(outcome: Outcome) -> None:
            accepted.add(outcome.accepted)
            rejected.add(outcome.rejected)

        fold = Fold(completions, selection, take, until)
        fold.advance()
        _check_ended(fold, completions)
        files, others = accepted.close(), rejected.close()
        report = _report(fold, completions, selection, until)
        report["files"] = [
            {"path": file.path, "rows": file.rows, "size": file.size} for file in (*files, *others)
        ]
        self._publish(
            "statistics.json", json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n"
        )
        self._publish("README.md", card.render(texts, report, selection.schema, files))
        storage.overwrite(
            self._sources_url, json.dumps(self._sources(completions, fold.shards_read)).encode()
        )
        storage.put_if_absent(self.folder.success_url, b"")
        return report

    def check_sources(self, completions: Completions) -> None:
        """Checks that the parts that a finished data set was made of are still what they were.

        Raises:
            ConfigError: they changed: rows that had failed were run again.
        """
        made_of = json.loads(storage.read(self._sources_url)[0])
        if made_of != self._sources(completions, len(made_of)):
            raise ConfigError(
                f"{redact_credentials(self.url)} was made of other completions: rows were run "
                "again since; choose another "
                "--dataset for what is there now"
            )

    @property
    def _sources_url(self) -> str:
        return storage.join(self.url, "sources.json")

    def _sources(self, completions: Completions, shards: int) -> list[list[str]]:
        """Returns name and version of the parts of the first shards."""
        numbers = [block.shard.number for block in completions.blocks if block.shard is not None][
            :shards
        ]
        wanted = {completions.folder.part_url(number).rsplit("/", 1)[-1] for number in numbers}
        listed = {
            stored.url.rsplit("/", 1)[-1]: stored.version
            for stored in storage.list_objects(completions.folder.data_url)
        }
        return [[name, version] for name, version in sorted(listed.items()) if name in wanted]

    def _publish(self, name: str, text: str) -> None:
        publish_once(storage.join(self.url, name), text.encode(), "figures")


def _check_ended(fold: Fold, completions: Completions) -> None:
    if fold.waits_for is not None and fold.waits_for.shard is not None:
        number = fold.waits_for.shard.number
        raise DatasetError(
            f"{completions.folder.part_url(number)} is not there yet, and there are not enough "
            "rows without it "
            f"({fold.selection.statistics.accepted:,} accepted so far): finish the run first, with "
            "the command that began it"
        )
    if not fold.shards_read:
        raise DatasetError(
            f"no shard in {completions.folder.data_url} counts: there is nothing to select from; "
            "let the run go on"
        )


def _report(
    fold: Fold, completions: Completions, selection: Selection, until: int | None
) -> dict[str, Any]:
    counted = selection.statistics
    read = fold.position < len(completions.blocks)
    return {
        **counted.report(),
        "seed_rows_not_needed": completions.seed_rows - counted.seed_rows,
        "stopped_by": selection.enough
        or ("max_replica_hours" if read and until is not None else None),
        "duplicates": _duplicates(selection),
        "examples": counted.examples,
        "rejected_examples": list(counted.rejected_examples.values()),
    }


def _duplicates(selection: Selection) -> Mapping[str, Any] | None:
    found, rules = selection.duplicates, selection.rules
    if found is None:
        return None
    reasons = selection.statistics.reasons["duplicate"]
    return {
        "columns": list(found.columns),
        "exact": reasons["exact"],
        "near": reasons["near"],
        "threshold": rules.dedup_threshold if rules.dedup == "near" else None,
        "capacity": found.capacity,
        "forgotten": found.forgotten,
    }
