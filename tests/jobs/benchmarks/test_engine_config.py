"""engine_config.py: the mesh and the numbers of slots that the flags of the benchmark contain."""

import pytest

from jobs.benchmarks.engine_config import EngineBenchmarkConfig
from pipeline.errors import ConfigError


def test_slots_are_numbers_separated_by_commas() -> None:
    assert EngineBenchmarkConfig().slot_counts() == [8, 32, 128]
    assert EngineBenchmarkConfig(slots="4").slot_counts() == [4]
    assert EngineBenchmarkConfig(slots="2, 16").slot_counts() == [2, 16]


@pytest.mark.parametrize("slots", ["", "8,", "8,x", "0", "-1", "1.5"])
def test_slots_that_are_no_numbers_are_refused(slots: str) -> None:
    with pytest.raises(ConfigError, match=r"^--slots: expected numbers of at least 1 with commas"):
        EngineBenchmarkConfig(slots=slots)


def test_mesh_is_data_by_model() -> None:
    assert EngineBenchmarkConfig(mesh="2x4").mesh_shape() == (2, 4)


@pytest.mark.parametrize("mesh", ["8", "1x", "axb", "0x1", "1x2x3"])
def test_mesh_of_another_form_is_refused(mesh: str) -> None:
    with pytest.raises(ConfigError, match=r"^--mesh: expected DATAxMODEL, e\.g\. 1x8, got"):
        EngineBenchmarkConfig(mesh=mesh)
