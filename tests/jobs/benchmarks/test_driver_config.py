"""driver_config.py: flags of the driver benchmark that are refused, and the longest sequence."""

from pathlib import Path
from typing import Any

import pytest

from jobs.benchmarks.driver_config import DriverBenchmarkConfig
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"folder": None}, "--folder is missing; see --help"),
        ({"rows": 0}, "expected at least 1"),
        ({"replicas": 0}, "expected at least 1"),
        ({"in_flight": 0}, "expected at least 1"),
        ({"service_s": 0.0}, r"--service-s: expected more than 0, got 0\.0"),
    ],
)
def test_flag_out_of_range_is_an_error(flags: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        DriverBenchmarkConfig(**{"folder": str(tmp_path / "new"), **flags})


def test_folder_that_exists_is_refused_because_it_is_deleted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists; it would be deleted at the end"):
        DriverBenchmarkConfig(folder=str(tmp_path))


def test_longest_sequence_has_eight_median_prompts_and_a_completion(tmp_path: Path) -> None:
    config = DriverBenchmarkConfig(folder=str(tmp_path / "new"), prompt_tokens=30, max_tokens=4)
    assert config.max_len == 244
