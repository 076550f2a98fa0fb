"""flag_checks.py: messages about flags that are missing or out of range."""

import math
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from jobs.cli.flag_checks import (
    check_range,
    flag_name,
    read_deadline,
    read_mesh,
    require_flags,
)
from pipeline.errors import ConfigError


@pytest.mark.parametrize("value", [None, "", ()])
def test_flag_without_a_value_is_missing(value: object) -> None:
    config = SimpleNamespace(input="a.parquet", id_column=value)
    require_flags(config, ["input"])
    with pytest.raises(ConfigError, match=r"^--id-column is missing; see --help$"):
        require_flags(config, ["input", "id_column"])


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0, 1, math.inf, "at least 1"),
        (-math.inf, 0, math.inf, "at least 0"),
        (4097, 1, 4096, "from 1 to 4096"),
        (0.4, 0.5, 0.9999, "from 0.5 to 0.9999"),
        (math.nan, 0, 1, "from 0 to 1"),
    ],
)
def test_value_out_of_range_is_an_error(
    value: float, low: float, high: float, expected: str
) -> None:
    with pytest.raises(ConfigError, match=f"^--file-mb: expected {expected}, got {value}$"):
        check_range("file_mb", value, low, high)


@pytest.mark.parametrize("value", [None, 1, 2.5, 4096])
def test_value_within_the_range_is_accepted(value: float | None) -> None:
    check_range("file_mb", value, 1, 4096)


@pytest.mark.parametrize("text", ["8", "0x8", "1x0", "1x8x1", "1 x 8", "-1x8", "x", ""])
def test_mesh_needs_two_numbers_of_devices(text: str) -> None:
    with pytest.raises(ConfigError, match=f"^--meshes: .* e.g. 1x8, got '{text}'$"):
        read_mesh(text, "meshes")


@pytest.mark.parametrize(("text", "shape"), [("1x8", (1, 8)), ("12x04", (12, 4))])
def test_mesh_is_data_by_model(text: str, shape: tuple[int, int]) -> None:
    assert read_mesh(text) == shape


BEGAN = datetime(2026, 11, 27, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("90m", 1.5),
        ("8h", 8),
        ("1h30m", 1.5),
        ("2d", 48),
        ("1.5h", 1.5),
        ("36s", 0.01),
        ("2026-11-28T06:00Z", 8),
        ("2026-11-28T06:00:00+01:00", 7),
        ("2026-11-27T20:00Z", -2),
    ],
)
def test_deadline_is_a_duration_or_a_time(text: str, hours: float) -> None:
    assert read_deadline(text, BEGAN) - BEGAN == timedelta(hours=hours)


@pytest.mark.parametrize(
    "text", ["", "8", "8 h", "h", "1m1h", "2026-11-28T06:00", "tomorrow", "-1h"]
)
def test_deadline_of_another_form_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--deadline: expected a duration such as 90m, 8h or"):
        read_deadline(text, BEGAN)


def test_flag_name_has_dashes() -> None:
    assert flag_name("program_timeout_s") == "--program-timeout-s"
