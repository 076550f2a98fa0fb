"""How far a run is, from the objects of its folder alone: run.json, the listing, the reports.

Reads no rows and asks no driver. So it works from any machine, while drivers run and after they
ended.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.inspection.prompts import planned_shards
from jobs.run.report import REPORT_NAME
from pipeline import storage
from pipeline.errors import ConfigError, DatasetError
from pipeline.output.run_folder import RunFolder

RATE_SPAN_S = 600.0  # the rate is that of the parts of the last ten minutes
QUIET_S = 900.0  # without a new part: a driver that runs may still have stopped
RUN_FILE = "run.json"


@dataclass(frozen=True, slots=True)
class DriverEnd:
    """How a driver ended, from its report."""

    partition: str  # I/N
    status: str
    message: str | None
    written_s: float | None  # seconds since 1970


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One run at one moment.

    Attributes:
        url: run folder.
        task: what the run does with each row.
        model: its --model.
        finished: whether `_SUCCESS` exists.
        parts: number of committed parts.
        parts_total: number of parts of the whole run.
        rows: input rows of the committed parts.
        rows_total: input rows of the whole run.
        last_part: name of the youngest part.
        last_part_s: when it was committed, in seconds since 1970.
        rows_per_s: of the last ten minutes before it, all drivers together.
        ends: drivers that wrote a report.
    """

    url: str
    task: str | None
    model: str | None
    finished: bool
    parts: int
    parts_total: int
    rows: int
    rows_total: int
    last_part: str | None
    last_part_s: float | None
    rows_per_s: float | None
    ends: tuple[DriverEnd, ...]

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last part at the current rate; None where it is not known."""
        if not self.rows_per_s:
            return None
        return (self.rows_total - self.rows) / self.rows_per_s

    def state(self, now_s: float) -> str:
        """Returns `finished`, `stopped`, `running` or `quiet`.

        A driver that is killed writes no report: a run without one counts as running until no part
        was committed for a while.
        """
        if self.finished:
            return "finished"
        if self.ends and all(self._is_last_word(end) for end in self.ends):
            return "stopped"
        if self.last_part_s is not None and now_s - self.last_part_s > QUIET_S:
            return "quiet"
        return "running"

    def _is_last_word(self, end: DriverEnd) -> bool:
        if self.last_part_s is None or end.written_s is None:
            return True
        return end.written_s >= self.last_part_s


def find_runs(url: str) -> list[str]:
    """Returns the run folders at `url`: itself, or those in it, as an evaluation has them.

    Raises:
        ConfigError: there is none.
    """
    if RunFolder(url).exists():
        return [url]
    listed = storage.list_objects(storage.join(url, "*", RUN_FILE))
    if not listed:
        raise ConfigError(f"{url}: holds no run, there is no {RUN_FILE}; check the folder")
    return [stored.url.rsplit("/", 1)[0] for stored in listed]


def read_status(url: str) -> RunStatus:
    """Reads how far a run is: two listings, run.json and the reports.

    Raises:
        DatasetError: run.json is not a run description, or the folder cannot be read.
    """
    folder = RunFolder(url)
    description = folder.description()
    rows_of_shard = _planned_rows(folder, description)
    parts = folder.parts()
    unknown = max(parts, default=0)
    if parts and unknown >= len(rows_of_shard):
        raise DatasetError(
            f"{folder.part_url(unknown)}: the run has {len(rows_of_shard)} shards; the folder "
            "mixes two runs"
        )
    last = max(parts, key=lambda number: (parts[number].modified_s or 0.0, number), default=None)
    config = description.get("config", {})
    return RunStatus(
        url=url,
        task=config.get("task"),
        model=config.get("model"),
        finished=folder.finished(),
        parts=len(parts),
        parts_total=len(rows_of_shard),
        rows=sum(rows_of_shard[number] for number in parts),
        rows_total=sum(rows_of_shard),
        last_part=None if last is None else folder.part_url(last).rsplit("/", 1)[-1],
        last_part_s=None if last is None else parts[last].modified_s,
        rows_per_s=_rate(parts, rows_of_shard),
        ends=tuple(_driver_ends(folder)),
    )


def _planned_rows(folder: RunFolder, description: dict[str, Any]) -> list[int]:
    """Returns the input rows of each shard, planned again from run.json."""
    try:
        shards = planned_shards(description)
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"{folder.run_url}: is not the description of a run of rows ({error!r})"
        ) from error
    return [shard.rows for shard in shards]


def _rate(parts: dict[int, storage.StoredObject], rows_of_shard: Sequence[int]) -> float | None:
    """Returns rows per second of the last ten minutes before the youngest part.

    The first part of the span is where it begins: its rows were computed before.
    """
    commits = sorted(
        (stored.modified_s, rows_of_shard[number])
        for number, stored in parts.items()
        if stored.modified_s is not None
    )
    if not commits:
        return None
    end_s = commits[-1][0]
    recent = [commit for commit in commits if end_s - commit[0] <= RATE_SPAN_S]
    span_s = end_s - recent[0][0]
    if span_s <= 0:
        return None
    return sum(rows for _, rows in recent[1:]) / span_s


def _driver_ends(folder: RunFolder) -> Iterator[DriverEnd]:
    for stored in folder.client.list_objects(storage.join(folder.url, "report*.json")):
        match = REPORT_NAME.fullmatch(stored.url.rsplit("/", 1)[-1])
        if not match:
            continue
        try:
            report = json.loads(folder.client.read(stored.url)[0])
        except ValueError:
            continue  # half of a report, of a driver that was killed
        yield DriverEnd(
            partition=f"{match[1] or 0}/{match[2] or 1}",
            status=str(report.get("status")),
            message=report.get("message"),
            written_s=stored.modified_s,
        )
