"""engine_config.py: the mesh and the numbers of slots that the flags of the benchmark contain."""

import pytest

from actors.engine.config import EngineConfig
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


def test_rows_of_a_prefill_have_the_size_of_the_engine() -> None:
    assert EngineBenchmarkConfig().block == EngineConfig(max_len=1).chunk


def test_layers_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--layers: expected at least 1, got 0"):
        EngineBenchmarkConfig(layers=0)
