"""Replica hours and cost of a run over all of its drivers, and the limits that end it in time.

    <run>/replica-hours/<call>.json     hours of one call of the job, overwritten during the call

All calls of the job and all partitions count, and the other runs of an evaluation. Hours after the
last write of a killed driver, at most a minute, are not counted.
"""

import contextlib
import json
import math
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from actors.protocol.errors import GrokBatchError
from jobs.cli.flag_checks import read_deadline
from jobs.run.config import ScoreConfig
from pipeline import storage
from pipeline.errors import LimitReachedError
from pipeline.monitoring.run_log import RunLog

FOLDER = "replica-hours"
RECORD_INTERVAL_S = 60.0
# With a limit, drivers read the hours of each other this often.
EXCHANGE_INTERVAL_S = 15.0
# Adding up the hours of 1,000 replicas takes 0.2 ms, and dispatch checks before each batch.
CHECK_INTERVAL_S = 1.0
# Kept before a deadline for the last commits, the report and the end of Ray.
COMMIT_RESERVE_S = 20.0
MOST_OF_DEADLINE = 0.25  # share of a short deadline that is kept for it
KEPT = "committed shards are kept; to go on, repeat the command with a"


@dataclass(frozen=True, slots=True)
class Usage:
    """What replicas have used."""

    replica_hours: float = 0.0
    cost: float = 0.0
    replicas_up: int = 0  # that use more

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.replica_hours + other.replica_hours,
            self.cost + other.cost,
            self.replicas_up + other.replicas_up,
        )

    def after(self, seconds: float, price: float) -> "Usage":
        """Returns the usage after a time in which all replicas stay up, at a price per hour."""
        hours = self.replicas_up * seconds / 3600
        return Usage(self.replica_hours + hours, self.cost + hours * price, self.replicas_up)


def _seconds_left(amount: float, amount_per_s: float) -> float:
    """Returns the time until an amount is used up, 0 if it is."""
    if amount <= 0:
        return 0.0
    if not amount_per_s:
        return math.inf
    return amount / amount_per_s


class DriverFigures(Protocol):
    """The figures of this driver; `Progress` implements it."""

    @property
    def replica_hours(self) -> float:
        """Hours that replicas were up, all of them together."""

    @property
    def replicas_up(self) -> int:
        """Replicas that are up now."""


class HourLedger:
    """The usage of each call of a job, in its run folder."""

    def __init__(
        self,
        urls: Sequence[str],
        price: float = 0.0,
        client: storage.Client = storage.DEFAULT_CLIENT,
    ) -> None:
        """Reads nothing.

        Args:
            urls: run folders that share their limits; the first one is that of this call.
            price: of a replica for an hour, for calls that did not have one.
            client: reads and writes.
        """
        self._folders = [storage.join(url, FOLDER) for url in urls]
        self._price = price
        self._client = client
        self._own_url = storage.join(self._folders[0], f"{uuid.uuid4().hex}.json")

    def record(self, usage: Usage) -> None:
        """Stores the usage of this call so far."""
        figures = {
            "replica_hours": usage.replica_hours,
            "cost": usage.cost,
            "replicas_up": usage.replicas_up,
        }
        self._client.overwrite(self._own_url, json.dumps(figures).encode())

    def others(self) -> Usage:
        """Reads what all other calls have used."""
        usage = Usage()
        for folder in self._folders:
            for file in self._client.list_objects(folder):
                if not file.url.endswith(self._own_url.rsplit("/", 1)[-1]):
                    usage += self._read(file.url)
        return usage

    def _read(self, url: str) -> Usage:
        figures: dict[str, Any] = json.loads(self._client.read(url)[0])
        hours = float(figures["replica_hours"])
        # Calls of earlier versions stored their hours only.
        cost = float(figures.get("cost", hours * self._price))
        return Usage(hours, cost, int(figures.get("replicas_up", 0)))


class RunLimits:
    """Counts what a run uses, and notices when it comes near a limit; dispatch's `Limits`."""

    def __init__(
        self,
        config: ScoreConfig,
        shared_with: Sequence[str] = (),
        log: RunLog | None = None,
        began: datetime | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads nothing.

        Args:
            config: configuration with the limits and the price of a replica.
            shared_with: other run folders that count for the same limits.
            log: receives why figures cannot be read or written.
            began: start of the job, from which a duration counts; None: now.
            clock: seconds, monotonic.
            now: time of day.
        """
        self._price = config.cost_per_replica_hour or 0.0
        self._max_hours = config.max_replica_hours
        self._max_cost = config.max_cost
        self._deadline_flag = config.deadline
        self._deadline: datetime | None = None
        self._reserve_s = 0.0
        began = began or now()
        if config.deadline is not None:
            self._deadline = read_deadline(config.deadline, began)
            available_s = (self._deadline - began).total_seconds()
            self._reserve_s = min(COMMIT_RESERVE_S, MOST_OF_DEADLINE * max(available_s, 0.0))

        self._log = log or RunLog()
        self._clock = clock
        self._now = now
        self._ledger = HourLedger([str(config.output), *shared_with], self._price)
        self._progress: DriverFigures | None = None
        self._message = "no limit is set"
        self._checked_s = -math.inf
        self._remaining_s = 0.0  # at the last check, until the first limit if all replicas stay up
        self._others = Usage()
        self._exchanged_s = -math.inf
        self._recorded_s = clock()

    def read_usage(self) -> None:
        """Reads what all other calls have used."""
        self._exchanged_s = self._clock()
        try:
            self._others = self._ledger.others()
        except (GrokBatchError, ValueError, KeyError) as error:
            self._warn("read", error)

    @contextlib.contextmanager
    def counting(self, progress: DriverFigures) -> Iterator[None]:
        """Counts the replicas of this driver within the block, and stores their hours at its end.

        A failure to store them is logged: the rows of the run are worth more.
        """
        self._progress = progress
        try:
            yield
        finally:
            own = self._own()
            if own.replica_hours:
                self._record(Usage(own.replica_hours, own.cost))

    def record(self) -> None:
        """Stores the hours of this driver if the stored ones are old."""
        if self._clock() - self._recorded_s >= RECORD_INTERVAL_S:
            self._record(self._own())

    def replica_hours(self) -> float:
        """Returns the replica hours of all calls so far."""
        return self._others.replica_hours + self._own().replica_hours

    def reached(self, within_s: float = 0.0) -> bool:
        """Returns whether a limit is reached within a time if all replicas that are up stay up."""
        if self._max_hours is None and self._max_cost is None and self._deadline is None:
            return False
        if self._was_checked(within_s):
            return False

        if self._clock() - self._exchanged_s >= EXCHANGE_INTERVAL_S:
            self._record(self._own())
            self.read_usage()
        self._check()
        return self._remaining_s <= within_s

    def _was_checked(self, within_s: float) -> bool:
        """Returns whether the last check holds still: no replica can have used up the rest."""
        if self._remaining_s == math.inf:
            return False  # no replica was up
        since_s = self._clock() - self._checked_s
        return since_s < min(CHECK_INTERVAL_S, (self._remaining_s - within_s) / 2)

    def expired(self) -> bool:
        """Returns whether the deadline itself is over."""
        return self._deadline is not None and self._now() >= self._deadline

    def error(self) -> LimitReachedError:
        """Returns the error that names the limit that was reached last."""
        return LimitReachedError(self._message)

    def _check(self) -> None:
        """Computes when the first limit is reached, and the message of a run that it ends."""
        self._checked_s = self._clock()
        age_s = self._checked_s - self._exchanged_s
        usage = self._others.after(age_s, self._price) + self._own()

        self._remaining_s = math.inf
        if self._max_hours is not None:
            hours_per_s = usage.replicas_up / 3600
            self._limit_to(
                _seconds_left(self._max_hours - usage.replica_hours, hours_per_s),
                f"--max-replica-hours {self._max_hours:g}: the run has used "
                f"{usage.replica_hours:.3g} replica hours in all its calls, and more would exceed "
                f"them; {KEPT} higher --max-replica-hours",
            )
        if self._max_cost is not None:
            cost_per_s = usage.replicas_up * self._price / 3600
            self._limit_to(
                _seconds_left(self._max_cost - usage.cost, cost_per_s),
                f"--max-cost {self._max_cost:g}: the run has cost {usage.cost:.3g} in all its "
                f"calls, and more would exceed it; {KEPT} higher --max-cost",
            )
        if self._deadline is not None:
            left_s = (self._deadline - self._now()).total_seconds()
            self._limit_to(
                left_s - self._reserve_s,
                f"--deadline {self._deadline_flag}: the time is up; {KEPT} later --deadline",
            )

    def _limit_to(self, remaining_s: float, message: str) -> None:
        if remaining_s < self._remaining_s:
            self._remaining_s = remaining_s
            self._message = message

    def _own(self) -> Usage:
        if self._progress is None:
            return Usage()
        hours = self._progress.replica_hours
        return Usage(hours, hours * self._price, self._progress.replicas_up)

    def _record(self, usage: Usage) -> None:
        self._recorded_s = self._clock()
        try:
            self._ledger.record(usage)
        except GrokBatchError as error:
            self._warn("stored", error)

    def _warn(self, action: str, error: Exception) -> None:
        message = f"warning: the replica hours of the run cannot be {action}: {error}"
        self._log.event("replica_hours_missing", message, level="warning")
