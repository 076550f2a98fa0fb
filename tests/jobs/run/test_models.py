import json
from pathlib import Path

import pytest

from actors.model.config import DEMO, GROK_1
from actors.protocol.errors import ModelError
from jobs.run.models import model_config
from pipeline.errors import ConfigError
from tests.jobs.runs import CONFORMANCE


def test_model_config_returns_presets_by_name() -> None:
    assert model_config("grok-1") == GROK_1
    assert model_config("demo") == DEMO


def test_model_config_reads_a_json_file() -> None:
    path = CONFORMANCE / "mha" / "config.json"

    assert model_config(str(path)).vocab_size == json.loads(path.read_text())["vocab_size"]


def test_model_config_refuses_unknown_names_and_lists_presets() -> None:
    with pytest.raises(ConfigError, match=r"expected one of .*grok-1.*, got 'grok-2'"):
        model_config("grok-2")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"\xff\xfe", ConfigError, "is not a JSON text"),
        (b'{"vocab_size": "many"}', ModelError, "^model config: "),
    ],
)
def test_model_config_refuses_files_that_describe_no_model(
    content: bytes, error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)

    with pytest.raises(error, match=message):
        model_config(str(path))
