"""Deprecated keys of report.json: both names are written, and older files are read."""

from dataclasses import asdict

from actors.protocol.messages import ReplicaStats
from pipeline.monitoring.deprecated_keys import (
    RENAMED,
    add_deprecated_keys,
    rename_deprecated_keys,
)


def test_deprecated_keys_name_counters_that_exist() -> None:
    assert set(RENAMED.values()) <= set(asdict(ReplicaStats()))


def test_add_deprecated_keys_copies_renamed_counters() -> None:
    counters = add_deprecated_keys({"prefill_tokens": 3, "rows": 4})
    assert counters == {"prefill_tokens": 3, "rows": 4, "extend_tokens": 3}


def test_rename_deprecated_keys_reads_old_and_new_reports() -> None:
    old = {"engine": {"extend_s": 1.5}, "over_time": {"extend_tokens": [1, 2]}, "rows": 1}
    new = {"engine": {"prefill_s": 1.5}, "over_time": {"prefill_tokens": [1, 2]}, "rows": 1}
    both = {
        "engine": add_deprecated_keys(new["engine"]),  # type: ignore[arg-type]
        "over_time": add_deprecated_keys(new["over_time"]),  # type: ignore[arg-type]
        "rows": 1,
    }
    assert rename_deprecated_keys(old) == rename_deprecated_keys(both) == new
