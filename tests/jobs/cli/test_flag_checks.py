"""flag_checks.py: messages about flags that are missing or out of range."""

import math
from types import SimpleNamespace

import pytest

from jobs.cli.flag_checks import check_range, flag_name, read_mesh, require_flags
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


def test_flag_name_has_dashes() -> None:
    assert flag_name("program_timeout_s") == "--program-timeout-s"
