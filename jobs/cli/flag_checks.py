"""Checks of flags that several commands share, with one message each."""

import math
import re
from collections.abc import Iterable

from actors.protocol.plain_text import quoted
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


def read_mesh(text: str, field: str = "mesh") -> tuple[int, int]:
    """Returns the devices along the data axis and along the model axis of a DATAxMODEL.

    Args:
        text: value of a flag.
        field: the flag's field, for the message.

    Raises:
        ConfigError: the text is not two numbers of at least 1 with an x between them.
    """
    match = re.fullmatch(r"0*([1-9]\d*)x0*([1-9]\d*)", text)
    if not match:
        raise ConfigError(f"{flag_name(field)}: expected DATAxMODEL, e.g. 1x8, got {quoted(text)}")
    return int(match[1]), int(match[2])


def flag_name(field: str) -> str:
    """Returns the flag of a field: "max_tokens" is `--max-tokens`."""
    return "--" + field.replace("_", "-")
