"""Regular expressions of the user, checked, and matched against columns of text.

The engine is RE2 in pyarrow: its time is linear in the text for any pattern, so that no completion
can hold up a run. RE2 has neither look-around nor back references; `(?s)` lets a dot match a line
break, `(?i)` ignores case.
"""

import re
from collections import Counter
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from actors.protocol.plain_text import quoted
from pipeline.errors import ConfigError

Texts = Any  # an Arrow column of strings
_UNSUPPORTED = re.compile(r"\(\?<?[=!]|\\[1-9]|\(\?P=")


class Pattern:
    """A pattern that RE2 accepts."""

    def __init__(self, source: str, flag: str) -> None:
        """Checks the pattern; `flag` is named in the message.

        Raises:
            ConfigError: the pattern is not valid; with the position.
        """
        self.source = source
        try:
            pc.match_substring_regex(pa.array([""]), source)
        except pa.ArrowException as error:
            reason = _syntax_message(source, str(error))
            raise ConfigError(f"{flag}: {quoted(source)}: {reason}") from error

    def matches(self, texts: Texts) -> npt.NDArray[np.bool_]:
        """Returns the mask of texts that contain a match; a null contains none."""
        mask: Any = pc.match_substring_regex(texts, self.source)
        return cast("npt.NDArray[np.bool_]", mask.fill_null(False).to_numpy(zero_copy_only=False))


class FieldPattern(Pattern):
    """A pattern with named groups."""

    def __init__(self, source: str, flag: str) -> None:
        """Checks the pattern and reads the names of its groups.

        Raises:
            ConfigError: the pattern is not valid, has no named group, two of one name, or a group
                without a name.
        """
        super().__init__(source, flag)
        try:
            groups: Any = pc.extract_regex(pa.array([], pa.string()), source).type
        except pa.ArrowException as error:
            raise ConfigError(
                f"{flag}: {quoted(source)}: expected named groups only, (?P<name>…); write (?:…) "
                "for the others"
            ) from error

        self.groups: tuple[str, ...] = tuple(groups.names)
        if not self.groups:
            raise ConfigError(
                f"{flag}: {quoted(source)}: expected at least one named group, (?P<name>…), got "
                "none"
            )

        # RE2 accepts a name twice; a row has one value per name
        for name, uses in Counter(self.groups).items():
            if uses > 1:
                raise ConfigError(
                    f"{flag}: {quoted(source)}: expected each group name once, got {quoted(name)} "
                    "twice or more; rename the groups"
                )

    def fields(self, texts: Texts) -> list[dict[str, str] | None]:
        """Returns the groups of the first match in each text; None without a match.

        A group that takes no part in the match is empty.
        """
        groups: Any = pc.extract_regex(texts, self.source)
        return cast("list[dict[str, str] | None]", groups.to_pylist())


def _syntax_message(source: str, message: str) -> str:
    """Returns RE2's reason with a position.

    The position comes from Python's parser, or from the part of the pattern that RE2 quotes.
    """
    unsupported = _UNSUPPORTED.search(source)
    if unsupported:
        return (
            "RE2 has no look-around and no back references (position "
            f"{unsupported.start()}: {quoted(unsupported[0])})"
        )

    reason = message.rsplit("Invalid regular expression: ", maxsplit=1)[-1].strip()
    fragment = reason.partition(": ")[2]
    position: int | None = None
    if fragment and fragment in source:
        position = source.find(fragment)
    try:
        re.compile(source)
    except re.error as error:
        position = error.pos
    if position is None:
        return reason
    return f"{reason} (position {position})"
