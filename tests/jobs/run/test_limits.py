import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from actors.protocol.messages import Batch, Request, RowRef, token_ids
from actors.protocol.sampling import Sampling
from jobs.benchmarks.driver_config import DriverBenchmarkConfig
from jobs.benchmarks.simulated_replicas import SimulatedClock, SimulatedReplicas
from jobs.run.config import ScoreConfig
from jobs.run.limits import COMMIT_RESERVE_S, EXCHANGE_INTERVAL_S, HourLedger, RunLimits, Usage
from pipeline.dispatch.dispatcher import DispatchConfig, run_batches
from pipeline.errors import LimitReachedError
from pipeline.monitoring.progress import Progress

BEGAN = datetime(2026, 11, 27, 22, tzinfo=UTC)


@dataclass
class Driver:
    """The figures of a driver, and its clock."""

    replica_hours: float = 0.0
    replicas_up: int = 0
    elapsed_s: float = 0.0

    def clock(self) -> float:
        return self.elapsed_s

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.elapsed_s)


def limits_of(
    folder: Path, driver: Driver, shared_with: tuple[str, ...] = (), **flags: Any
) -> RunLimits:
    config = ScoreConfig(
        input="rows.parquet", output=str(folder), model="demo", max_tokens=1, **flags
    )
    limits = RunLimits(config, shared_with, clock=driver.clock, now=driver.now)
    limits.read_usage()
    return limits


def test_hour_ledger_sums_usage_of_all_other_calls(tmp_path: Path) -> None:
    first = HourLedger([str(tmp_path)])
    first.record(Usage(1.0, 2.0, 3))
    first.record(Usage(4.0, 8.0, 0))
    HourLedger([str(tmp_path)]).record(Usage(0.5, 3.0, 2))

    assert first.others() == Usage(0.5, 3.0, 2)
    assert HourLedger([str(tmp_path)]).others() == Usage(4.5, 11.0, 2)
    assert HourLedger([str(tmp_path / "other"), str(tmp_path)]).others() == Usage(4.5, 11.0, 2)


def test_hour_ledger_prices_calls_of_earlier_versions(tmp_path: Path) -> None:
    (tmp_path / "replica-hours").mkdir()
    (tmp_path / "replica-hours" / "call.json").write_text(json.dumps({"replica_hours": 3.0}))

    assert HourLedger([str(tmp_path)], price=2.0).others() == Usage(3.0, 6.0, 0)


def test_limits_are_never_reached_without_flags(tmp_path: Path) -> None:
    driver = Driver(replica_hours=1e9, replicas_up=1000)
    limits = limits_of(tmp_path, driver)

    with limits.counting(driver):
        assert not limits.reached(1e9)
        assert not limits.expired()


def test_replica_hours_are_reached_when_the_drain_would_exceed_them(tmp_path: Path) -> None:
    driver = Driver(replica_hours=9.0, replicas_up=10)
    limits = limits_of(tmp_path, driver, max_replica_hours=10.0)

    with limits.counting(driver):
        assert not limits.reached()
        assert not limits.reached(359.0)
        assert limits.reached(360.0)

    message = str(limits.error())
    assert message.startswith("--max-replica-hours 10: the run has used 9 replica hours in all its")
    assert message.endswith("repeat the command with a higher --max-replica-hours")


def test_limits_sum_over_resumes_partitions_and_shared_runs(tmp_path: Path) -> None:
    first = Driver(replica_hours=4.0)
    with limits_of(tmp_path / "score", first, cost_per_replica_hour=5.0).counting(first):
        pass
    second = Driver(replica_hours=2.0)
    flags = {"cost_per_replica_hour": 10.0, "max_cost": 50.0}
    shared = (str(tmp_path / "score"),)
    limits = limits_of(tmp_path / "generate", second, shared, **flags)

    with limits.counting(second):
        assert limits.replica_hours() == 6.0
        assert not limits.reached()
        second.replica_hours = 3.0
        assert limits.reached(), "4 hours at 5 and 3 hours at 10"
    assert "--max-cost 50: the run has cost 50 in all its calls" in str(limits.error())


def test_limits_count_other_drivers_that_run_now(tmp_path: Path) -> None:
    other = HourLedger([str(tmp_path)])
    other.record(Usage(1.0, 0.0, 360))
    driver = Driver()
    limits = limits_of(tmp_path, driver, max_replica_hours=4.0)

    with limits.counting(driver):
        driver.elapsed_s = 10.0
        assert not limits.reached(), "360 replicas for 10 s: 1 hour"
        other.record(Usage(3.5, 0.0, 360))
        driver.elapsed_s = EXCHANGE_INTERVAL_S
        assert not limits.reached()
        driver.elapsed_s += 5.0
        assert limits.reached()


def test_hours_of_a_driver_are_stored_during_and_after_its_run(tmp_path: Path) -> None:
    driver = Driver(replica_hours=1.0, replicas_up=2)
    limits = limits_of(tmp_path, driver, cost_per_replica_hour=3.0)

    with limits.counting(driver):
        limits.record()
        assert HourLedger([str(tmp_path)]).others() == Usage(), "not due yet"
        driver.elapsed_s = 3600.0
        limits.record()
        assert HourLedger([str(tmp_path)]).others() == Usage(1.0, 3.0, 2)
        driver.replica_hours = 2.0

    assert HourLedger([str(tmp_path)]).others() == Usage(2.0, 6.0, 0)


def test_deadline_keeps_time_for_the_last_commit(tmp_path: Path) -> None:
    driver = Driver()
    limits = limits_of(tmp_path, driver, deadline="1h")

    driver.elapsed_s = 3600.0 - COMMIT_RESERVE_S - 1.0
    assert not limits.reached()
    assert limits.reached(1.0)
    driver.elapsed_s += 1.0
    assert limits.reached()
    assert not limits.expired()
    driver.elapsed_s = 3600.0
    assert limits.expired()
    assert str(limits.error()).startswith("--deadline 1h: the time is up; committed shards are")


def test_short_deadline_leaves_time_to_run(tmp_path: Path) -> None:
    driver = Driver()
    limits = limits_of(tmp_path, driver, deadline="2026-11-27T23:00:20+01:00")

    assert not limits.reached(14.0)
    assert limits.reached(15.0)


def test_usage_that_cannot_be_read_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "replica-hours").mkdir()
    (tmp_path / "replica-hours" / "call.json").write_text("{")
    driver = Driver()

    assert not limits_of(tmp_path, driver, max_replica_hours=1.0).reached()

    assert "warning: the replica hours of the run cannot be read" in capsys.readouterr().err


class FleetClock(SimulatedClock):
    """Simulated time in which the driver takes no time."""

    @property
    def driver_s(self) -> float:
        return 0.0


class Fleet(SimulatedReplicas):
    """Simulated replicas that remember their longest batch."""

    longest_batch_s = 0.0

    def _service_s(self) -> float:
        service_s = super()._service_s()
        self.longest_batch_s = max(self.longest_batch_s, service_s)
        return service_s


def endless_batches() -> Iterator[Batch]:
    for row in itertools.count():
        request = Request(RowRef(0, row), token_ids([1, 2]), sampling=Sampling(1, seed=row))
        yield Batch((request,))


@pytest.mark.parametrize("in_flight", [1, 8])
@pytest.mark.parametrize(
    ("max_replica_hours", "least_used"),
    [
        pytest.param(0.05, 0.0, id="before the first batch is done"),
        pytest.param(2.0, 0.0, id="few batches"),
        pytest.param(25.0, 0.7, id="many batches"),
    ],
)
@pytest.mark.parametrize("failure_s", [None, 600.0])
def test_fleet_overspends_by_at_most_one_batch_per_replica(
    tmp_path: Path,
    max_replica_hours: float,
    least_used: float,
    in_flight: int,
    failure_s: float | None,
) -> None:
    clock = FleetClock()
    fleet = Fleet(
        DriverBenchmarkConfig("x", replicas=30, failure_s=failure_s, slow_share=0.02),
        clock,
    )
    progress = Progress(1, clock=clock.now)
    config = ScoreConfig(
        input="rows.parquet",
        output=str(tmp_path),
        model="demo",
        max_tokens=1,
        max_replica_hours=max_replica_hours,
    )
    limits = RunLimits(config, clock=clock.now)
    dispatch = DispatchConfig(in_flight, max_attempts=50, clock=clock.now)

    with limits.counting(progress), pytest.raises(LimitReachedError, match="--max-replica-hours"):
        for _ in run_batches(endless_batches(), fleet, dispatch, progress, lambda: False, limits):
            pass

    overspent_s = (progress.replica_hours - max_replica_hours) * 3600
    assert overspent_s <= 30 * fleet.longest_batch_s
    assert progress.replica_hours >= least_used * max_replica_hours
    assert fleet.up == 0, "replicas end when they have no batch"


def test_run_that_is_done_when_its_limit_comes_near_is_complete(tmp_path: Path) -> None:
    clock = FleetClock()
    fleet = Fleet(DriverBenchmarkConfig("x", replicas=2), clock)
    progress = Progress(1, clock=clock.now)
    driver = Driver(replica_hours=1.0)
    limits = limits_of(tmp_path, driver, max_replica_hours=1.1)
    dispatch = DispatchConfig(1, clock=clock.now)
    batches = list(itertools.islice(endless_batches(), 2))

    def used_up_at_the_end(batches: list[Batch]) -> Iterator[Batch]:
        yield from batches
        driver.replica_hours = 1.1

    with limits.counting(driver):
        completions = list(
            run_batches(
                used_up_at_the_end(batches), fleet, dispatch, progress, lambda: False, limits
            )
        )

    assert len(completions) == 2
