"""Copies parts and shards that older runs have, and counts what is copied and what is computed."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.run.plan import Plan
from jobs.run.reuse.matching import ShardMatch, match_shards
from jobs.run.reuse.older_runs import OlderRuns
from pipeline.input.read_ahead import read_ahead
from pipeline.output.reuse.copies import publish_part, publish_rows
from pipeline.output.run_folder import RunFolder
from pipeline.records import Shard
from pipeline.storage.redaction import redact_credentials

PARTS_AT_ONCE = 4  # in memory


@dataclass(slots=True)
class ReuseFigures:
    """Counts of rows that are copied and computed.

    Attributes:
        copied: rows by the folder of the run that has them.
        parts: shards that were taken as parts, without reading their input.
        computed: rows that are run.
        saved_replica_hours: what the older runs took for the copied rows; None: not known.
        price: of a replica for an hour; None: not known.
    """

    copied: Counter[str] = field(default_factory=Counter)
    parts: int = 0
    computed: int = 0
    saved_replica_hours: float | None = None
    price: float | None = None

    @property
    def rows_copied(self) -> int:
        """Rows of all runs."""
        return self.copied.total()

    @property
    def saved_cost(self) -> float | None:
        """Price of the saved hours; None: not known."""
        if self.saved_replica_hours is None or self.price is None:
            return None
        return self.saved_replica_hours * self.price

    def add(self, match: ShardMatch, older: OlderRuns) -> None:
        """Counts a shard."""
        self.computed += match.rows_computed
        copied: Counter[str] = Counter()
        if match.part is not None:
            self.parts += 1
            copied[match.part.folder.url] = match.rows_copied
        elif match.shard.copied is not None:
            copied = older.rows.rows_by_run(match.shard.copied.locations)
        self.copied += copied
        for url, rows in copied.items():
            hours = older.hours_per_row(url)
            if hours is not None:
                self.saved_replica_hours = (self.saved_replica_hours or 0.0) + hours * rows

    def as_json(self) -> dict[str, Any]:
        """Returns the figures for report.json and --dry-run."""
        return {
            "rows_copied": self.rows_copied,
            "rows_computed": self.computed,
            "parts_copied": self.parts,
            "runs": {redact_credentials(url): rows for url, rows in self.copied.items()},
            "saved_replica_hours": self.saved_replica_hours,
            "saved_cost": self.saved_cost,
        }

    def plan_text(self) -> str:
        """Returns what is copied and what is left to compute, as a line."""
        return f"{self._sources()}: copied; {self.computed:,} rows: computed"

    def _sources(self) -> str:
        sources: list[str] = []
        for url, rows in self.copied.most_common():
            sources.append(f"{rows:,} rows of {redact_credentials(url)}")
        return " and ".join(sources) or "no row"

    def text(self) -> str:
        """Returns what was copied and computed, as a line."""
        line = f"copied {self._sources()}, computed {self.computed:,}"
        if self.saved_cost is not None:
            return f"{line}, saved {self.saved_cost:,.2f}"
        if self.saved_replica_hours is not None:
            return f"{line}, saved {self.saved_replica_hours:,.2f} replica-hours"
        return line


@dataclass(frozen=True, slots=True)
class CopiedShards:
    """What is left to run, and the shards that were copied completely."""

    remaining: tuple[Shard, ...]
    committed: frozenset[int]
    figures: ReuseFigures | None  # None: the run has no older runs


def count_reuse(
    plan: Plan, older: OlderRuns, shards: Sequence[Shard], context: bytes
) -> ReuseFigures:
    """Returns what a run would copy; writes nothing."""
    figures = ReuseFigures(price=plan.config.cost_per_replica_hour)
    for match in match_shards(plan, older, shards, context):
        figures.add(match, older)
    return figures


def copy_shards(
    plan: Plan,
    older: OlderRuns,
    shards: Sequence[Shard],
    context: bytes,
    folder: RunFolder,
    fingerprint: str,
    advance: Callable[[int], None],
) -> CopiedShards:
    """Writes the parts of shards that older runs have completely.

    Args:
        plan: of the run.
        older: the runs that rows are copied from.
        shards: to run.
        context: stands in digests of rows for the settings of the run.
        folder: of the run.
        fingerprint: of the run.
        advance: called after each shard with its rows; may raise to end the run.

    Raises:
        ConfigError: another run has written a part.
        DatasetError: an older part cannot be read, or a new one cannot be written.
    """
    schema = plan.output_schema()

    def publish(match: ShardMatch) -> ShardMatch:
        copied = match.shard.copied
        if match.part is not None:
            publish_part(folder, schema, fingerprint, match.shard, match.part)
        elif copied is not None and match.opened is not None and not match.rows_computed:
            passthrough = match.opened.passthrough
            publish_rows(folder, schema, fingerprint, match.shard, passthrough, copied)
        return match

    figures = ReuseFigures(price=plan.config.cost_per_replica_hour)
    committed: set[int] = set()
    remaining: list[Shard] = []
    matches = match_shards(plan, older, shards, context, folder.client)
    for match in read_ahead(publish, matches, PARTS_AT_ONCE):
        figures.add(match, older)
        if match.rows_computed:
            remaining.append(match.shard)
        else:
            committed.add(match.shard.number)
        advance(match.shard.rows)
    remaining.sort(key=lambda shard: shard.number)
    return CopiedShards(tuple(remaining), frozenset(committed), figures)
