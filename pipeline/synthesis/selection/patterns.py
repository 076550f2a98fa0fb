"""A regular expression of the user's → checked, with the place of a mistake.

Matched against columns of texts.

The engine is RE2, as pyarrow has it: its time is linear in the text, whatever the pattern, so that
no completion can hold a run. It has neither look-around nor back references; `(?s)` lets a dot
match a line break, `(?i)` ignores case.
"""

import re
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError

Texts = Any  # an Arrow column of strings
_LOOKING = re.compile(r"\(\?<?[=!]|\\[1-9]|\(\?P=")


class Pattern:
    """A pattern that RE2 accepts."""

    def __init__(self, source: str, flag: str) -> None:
        """Checks the pattern; `flag` is named in the message.

        Raises:
            ConfigError: it is no pattern; tells where.
        """
        self.source = source
        try:
            pc.match_substring_regex(pa.array([""]), source)
        except pa.ArrowException as error:
            raise ConfigError(f"{flag}: {source!r}: {_explained(source, str(error))}") from error

    def matches(self, texts: Texts) -> npt.NDArray[np.bool_]:
        """Returns which texts contain a match; a null contains none."""
        found: Any = pc.match_substring_regex(texts, self.source)
        return cast("npt.NDArray[np.bool_]", found.fill_null(False).to_numpy(zero_copy_only=False))


class FieldPattern(Pattern):
    """A pattern with named groups."""

    def __init__(self, source: str, flag: str) -> None:
        """Checks the pattern and finds its groups.

        Raises:
            ConfigError: it is no pattern, or has no named groups, one twice, or one without a name.
        """
        super().__init__(source, flag)
        try:
            kind: Any = pc.extract_regex(pa.array([], pa.string()), source).type
        except pa.ArrowException as error:
            raise ConfigError(
                f"{flag}: {source!r}: expected named groups only, (?P<name>…); write (?:…) for the "
                "others"
            ) from error
        self.groups: tuple[str, ...] = tuple(
            kind.field(index).name for index in range(kind.num_fields)
        )
        if not self.groups:
            raise ConfigError(
                f"{flag}: {source!r}: expected at least one named group, (?P<name>…), got none"
            )

    def fields(self, texts: Texts) -> list[dict[str, str] | None]:
        """Returns the groups of the first match in each text.

        None without a match. A group that took no part is empty.
        """
        found: Any = pc.extract_regex(texts, self.source)
        return cast("list[dict[str, str] | None]", found.to_pylist())


def _explained(source: str, message: str) -> str:
    """Returns RE2's reason with a position: Python's own parser tells it, or the part of the pattern that RE2 quotes."""
    reason = message.rsplit("Invalid regular expression: ", maxsplit=1)[-1].strip()
    quoted = reason.partition(": ")[2]
    position: int | None = source.find(quoted) if quoted and quoted in source else None
    looking = _LOOKING.search(source)
    if looking:
        return f"RE2 has no look-around and no back references (position {looking.start()}: {looking[0]!r})"
    try:
        re.compile(source)
    except re.error as error:
        position = error.pos
    return reason if position is None else f"{reason} (position {position})"
