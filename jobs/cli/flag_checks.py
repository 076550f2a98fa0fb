"""Checks of flags that several commands share, with one message each."""

import math
import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from actors.protocol.plain_text import quoted
from pipeline.errors import ConfigError

_NUMBER = r"\d{1,6}(?:\.\d{1,6})?"
DURATION = re.compile(
    rf"(?:(?P<days>{_NUMBER})d)?(?:(?P<hours>{_NUMBER})h)?"
    rf"(?:(?P<minutes>{_NUMBER})m)?(?:(?P<seconds>{_NUMBER})s)?",
    re.ASCII,
)


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


def read_deadline(text: str, began: datetime) -> datetime:
    """Returns the moment of a deadline: a duration after the start, or a time in ISO 8601.

    Args:
        text: value of a flag: 90m, 8h, 1h30m, 2d, or 2026-11-28T06:00:00+01:00.
        began: start of the job.

    Raises:
        ConfigError: the text is neither, or a time without offset from UTC.
    """
    duration = DURATION.fullmatch(text)
    if duration and text:
        return began + timedelta(
            days=float(duration["days"] or 0),
            hours=float(duration["hours"] or 0),
            minutes=float(duration["minutes"] or 0),
            seconds=float(duration["seconds"] or 0),
        )
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError(
            "--deadline: expected a duration such as 90m, 8h or 1h30m, or a time with its offset "
            f"from UTC such as 2026-11-28T06:00Z or 2026-11-28T06:00+01:00, got {quoted(text)}"
        )
    return moment


def flag_name(field: str) -> str:
    """Returns the flag of a field: "max_tokens" is `--max-tokens`."""
    return "--" + field.replace("_", "-")
