"""pipeline_config.py: flags of the pipeline benchmark that are refused, and the model's preset."""

from pathlib import Path

import pytest

from actors.model.config import DEMO, SMALL
from jobs.benchmarks.pipeline_config import REQUIRED, PipelineBenchmarkConfig
from pipeline.errors import ConfigError


@pytest.fixture
def required(tmp_path: Path) -> dict[str, str]:
    """Returns values of the required flags."""
    return {
        "input": "in.parquet",
        "tokenizer": "tokenizer.model",
        "folder": str(tmp_path / "new"),
    }


@pytest.mark.parametrize("name", REQUIRED)
def test_missing_flag_is_an_error(name: str, required: dict[str, str]) -> None:
    del required[name]
    with pytest.raises(ConfigError, match=f"^--{name} is missing; see --help$"):
        PipelineBenchmarkConfig(**required)  # type: ignore[arg-type]


def test_folder_that_exists_is_refused_because_it_is_deleted(
    required: dict[str, str], tmp_path: Path
) -> None:
    required["folder"] = str(tmp_path)
    with pytest.raises(ConfigError, match=r"^--folder: .* exists and would be deleted"):
        PipelineBenchmarkConfig(**required)  # type: ignore[arg-type]


def test_model_is_a_preset(required: dict[str, str]) -> None:
    config = PipelineBenchmarkConfig(**required)  # type: ignore[arg-type]
    assert config.model_config == SMALL
    demo = PipelineBenchmarkConfig(**required, model="demo")  # type: ignore[arg-type]
    assert demo.model_config == DEMO
