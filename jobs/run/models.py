"""Reads the hyperparameters of --model: a preset's name, or the path or URL of a JSON file."""

from actors.model.config import PRESETS, ModelConfig
from actors.protocol.plain_text import quoted
from pipeline import storage
from pipeline.errors import ConfigError


def model_config(name: str) -> ModelConfig:
    """Returns the model of a --model flag.

    Raises:
        ConfigError: neither a known name nor a JSON file.
        ModelError: the JSON file describes no model.
    """
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith(".json"):
        raise ConfigError(
            f"--model: expected one of {', '.join(PRESETS)}, or the path or URL of a .json file, "
            f"got {quoted(name)}"
        )
    try:
        return ModelConfig.from_json(storage.read(name)[0].decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"--model: {name} is not a JSON text ({error})") from error
