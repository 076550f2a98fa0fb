"""Folder of a data set, ready to be trained on or uploaded as it is.

    run.json                     what the data set depends on, with a fingerprint; created first
    data/train-00000.parquet     accepted rows; data/<column>=<value>/… with partition columns
    rejected/rejected-00000.parquet
    statistics.json, README.md   figures, and the data card
    sources.json                 versions of the completions that were read
    _SUCCESS                     created last

Every object is created once. A selection that was killed is repeated from its beginning: objects
that it wrote before are kept.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.protocol.plain_text import bare
from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.output.publication import publish_once
from pipeline.output.run_folder import RunFolder
from pipeline.synthesis.dataset import card
from pipeline.synthesis.dataset.card import CardTexts
from pipeline.synthesis.dataset.files import DataFiles, GroupSize
from pipeline.synthesis.selection.completions import Completions
from pipeline.synthesis.selection.selection import Selection
from pipeline.synthesis.selection.selection_pass import SelectionPass

REJECTED_FILE_BYTES = 128 * 2**20
BUDGET_OF_HOURS = "max_replica_hours"  # `stopped_by` of a data set that a budget of hours ended


@dataclass(frozen=True, slots=True)
class Layout:
    """Division of accepted rows into files."""

    file_bytes: int
    partition_by: tuple[str, ...] = ()
    group_size: GroupSize = field(default_factory=GroupSize)


class DatasetFolder:
    """The data set at `url`."""

    def __init__(self, url: str) -> None:
        self.folder = RunFolder(url)

    @property
    def url(self) -> str:
        """URL of the folder."""
        return self.folder.url

    @property
    def data_url(self) -> str:
        """Folder of the accepted rows."""
        return self.folder.data_url

    @property
    def card_url(self) -> str:
        """URL of the data card."""
        return storage.join(self.url, "README.md")

    def statistics(self) -> dict[str, Any]:
        """Returns the content of statistics.json.

        Raises:
            DatasetError: it does not exist.
        """
        data, _version = storage.read(storage.join(self.url, "statistics.json"))
        report: dict[str, Any] = json.loads(data)
        return report

    def write(
        self,
        completions: Completions,
        selection: Selection,
        layout: Layout,
        texts: CardTexts,
        until: int | None,
    ) -> dict[str, Any]:
        """Selects from all samples, writes the data set and returns its statistics.

        Args:
            completions: samples of the run.
            selection: a selection without earlier samples.
            layout: division of the accepted rows into files.
            texts: content of the card beside the figures.
            until: number of blocks that count; None: all.

        Raises:
            DatasetError: shards are missing or damaged, or an object cannot be written.
            ConfigError: an object exists and holds something else.
        """
        accepted = DataFiles(
            self.url,
            "data",
            "train",
            selection.schema,
            layout.file_bytes,
            layout.partition_by,
            layout.group_size,
        )
        rejected = DataFiles(
            self.url,
            "rejected",
            "rejected",
            selection.rejected_schema,
            REJECTED_FILE_BYTES,
            group_size=layout.group_size,
        )
        selection_pass = SelectionPass(completions, selection, until)
        for outcome in selection_pass.outcomes():
            accepted.add(outcome.accepted)
            rejected.add(outcome.rejected)
        _check_ended(selection_pass, completions)

        accepted_files = accepted.close()
        rejected_files = rejected.close()
        report = _report(selection_pass, completions, until)
        report["files"] = [
            {"path": file.path, "rows": file.rows, "size": file.size}
            for file in (*accepted_files, *rejected_files)
        ]
        statistics = json.dumps(report, indent=2, ensure_ascii=False, default=str)
        self._publish("statistics.json", statistics + "\n")
        self._publish("README.md", card.render(texts, report, selection.schema, accepted_files))
        sources = self._sources(completions, selection_pass.shards_read)
        storage.overwrite(self._sources_url, json.dumps(sources).encode())
        storage.put_if_absent(self.folder.success_url, b"")
        return report

    def check_sources(self, completions: Completions) -> None:
        """Checks that the parts from which a finished data set was made have not changed.

        Raises:
            ConfigError: they changed: failed rows were run again.
        """
        data, _version = storage.read(self._sources_url)
        sources = json.loads(data)
        if sources != self._sources(completions, len(sources)):
            raise ConfigError(
                f"{bare(self.url)} was made of other completions: rows were run "
                "again since; choose another --dataset for what is there now"
            )

    @property
    def _sources_url(self) -> str:
        return storage.join(self.url, "sources.json")

    def _sources(self, completions: Completions, shards: int) -> list[list[str]]:
        """Returns name and version of the parts of the first shards."""
        all_shards = [block.shard for block in completions.blocks if block.shard is not None]
        counted = set()
        for shard in all_shards[:shards]:
            counted.add(_file_name(completions.folder.part_url(shard.number)))

        sources = []
        for stored in storage.list_objects(completions.folder.data_url):
            name = _file_name(stored.url)
            if name in counted:
                sources.append([name, stored.version])
        return sorted(sources)

    def _publish(self, name: str, text: str) -> None:
        publish_once(storage.join(self.url, name), text.encode(), "figures")


def _file_name(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def _check_ended(selection_pass: SelectionPass, completions: Completions) -> None:
    missing = selection_pass.next_block
    if missing is not None and missing.shard is not None:
        accepted = selection_pass.selection.statistics.accepted
        raise DatasetError(
            f"{completions.folder.part_url(missing.shard.number)} is not there yet, and there are "
            f"not enough rows without it ({accepted:,} accepted so far): finish the run first, "
            "with the command that began it"
        )
    if not selection_pass.shards_read:
        raise DatasetError(
            f"no shard in {completions.folder.data_url} counts: there is nothing to select from; "
            "continue the run"
        )


def _report(
    selection_pass: SelectionPass, completions: Completions, until: int | None
) -> dict[str, Any]:
    selection = selection_pass.selection
    statistics = selection.statistics
    stopped_by = selection.stopped_by
    blocks_remain = selection_pass.position < len(completions.blocks)
    if stopped_by is None and until is not None and blocks_remain:
        stopped_by = BUDGET_OF_HOURS
    return {
        **statistics.report(),
        "seed_rows_not_needed": completions.seed_rows - statistics.seed_rows,
        "stopped_by": stopped_by,
        "duplicates": _duplicates(selection),
        "examples": statistics.examples,
        "rejected_examples": list(statistics.rejected_examples.values()),
    }


def _duplicates(selection: Selection) -> Mapping[str, Any] | None:
    duplicates = selection.duplicates
    if duplicates is None:
        return None
    reasons = selection.statistics.reasons["duplicate"]
    threshold = None
    if selection.rules.dedup == "near":
        threshold = selection.rules.dedup_threshold
    return {
        "columns": list(duplicates.columns),
        "exact": reasons["exact"],
        "near": reasons["near"],
        "threshold": threshold,
        "capacity": duplicates.capacity,
        "forgotten": duplicates.forgotten,
    }
