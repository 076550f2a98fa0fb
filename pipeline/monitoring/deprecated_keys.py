"""Deprecated keys of report.json: written beside their new names, and accepted in older files."""

from collections.abc import Mapping
from typing import Any

# deprecated key: its new name
RENAMED = {
    "extend_tokens": "prefill_tokens",
    "extend_positions": "prefill_positions",
    "extend_calls": "prefill_calls",
    "extend_s": "prefill_s",
}


def add_deprecated_keys(counters: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `counters` with a copy of each renamed one under its deprecated key."""
    result = dict(counters)
    for deprecated, current in RENAMED.items():
        if current in counters:
            result[deprecated] = counters[current]
    return result


def rename_deprecated_keys(report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of a report.json whose engine counters have their current names.

    Reports that were written before a counter got its current name have the deprecated key only.
    """
    result = dict(report)
    for section in ("engine", "over_time"):
        counters = dict(report[section])
        for deprecated, current in RENAMED.items():
            if deprecated in counters:
                value = counters.pop(deprecated)
                counters.setdefault(current, value)
        result[section] = counters
    return result
