"""Checks of flags that several commands share, with one message each."""

import math
from collections.abc import Iterable

from pipeline.errors import ConfigError


def require_flags(config: object, names: Iterable[str]) -> None:
    """Checks that flags have a value.

    Args:
        config: the configuration of a command.
        names: fields of `config`.

    Raises:
        ConfigError: a flag is missing or empty.
    """
    for name in names:
        if not getattr(config, name):
            raise ConfigError(f"{flag_name(name)} is missing; see --help")


def check_range(field: str, value: float | None, low: float, high: float = math.inf) -> None:
    """Checks that the value of a numeric flag is from `low` to `high`; None is valid.

    Raises:
        ConfigError: the value is out of range.
    """
    if value is None or low <= value <= high:
        return
    expected = f"at least {low:g}"
    if high < math.inf:
        expected = f"from {low:g} to {high:g}"
    raise ConfigError(f"{flag_name(field)}: expected {expected}, got {value}")


def flag_name(field: str) -> str:
    """Returns the flag of a field: "max_tokens" is `--max-tokens`."""
    return "--" + field.replace("_", "-")
