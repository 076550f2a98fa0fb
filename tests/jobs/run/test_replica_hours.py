import json
from pathlib import Path

from jobs.run.replica_hours import HourLedger


def test_hour_ledger_sums_hours_of_all_calls(tmp_path: Path) -> None:
    first = HourLedger(str(tmp_path), 10)
    assert [first.used_up(hours) for hours in (0.0, 4.0, 6.0)] == [False, False, False]

    second = HourLedger(str(tmp_path), 10)
    assert [second.used_up(hours) for hours in (0.0, 3.9, 4.0)] == [False, False, True]


def test_hour_ledger_replaces_the_hours_of_its_own_call(tmp_path: Path) -> None:
    ledger = HourLedger(str(tmp_path), 10)
    ledger.used_up(2.0)
    ledger.used_up(3.0)

    [file] = (tmp_path / "replica-hours").iterdir()
    assert json.loads(file.read_text()) == {"replica_hours": 3.0}


def test_hour_ledger_keeps_the_first_block_of_a_budget(tmp_path: Path) -> None:
    ledger = HourLedger(str(tmp_path), 10)
    assert ledger.stopped_at() is None

    ledger.stop_at(7)
    HourLedger(str(tmp_path), 10).stop_at(9)

    assert HourLedger(str(tmp_path), 10).stopped_at() == 7
    assert HourLedger(str(tmp_path), 20).stopped_at() is None
