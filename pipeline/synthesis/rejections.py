"""Reasons why a sample is not in the data set: the stage, a counted reason, and a detail."""

from dataclasses import dataclass
from typing import Literal, get_args

from actors.protocol.plain_text import VALUE_CHARS, bare

Stage = Literal[
    "template",
    "generation",
    "filter",
    "parse",
    "where",
    "choose",
    "partition",
    "duplicate",
    "stop",
]
# in the order in which they run; `stop` also runs before generation, for rows that are not needed
STAGES: tuple[Stage, ...] = get_args(Stage)
DETAIL_CHARS = VALUE_CHARS


@dataclass(frozen=True, slots=True)
class Rejection:
    """The rejection of one sample or one seed row."""

    stage: Stage
    reason: str  # one of few: reasons are counted
    detail: str | None = None
    duplicate_of: str | None = None  # the accepted sample that it repeats, <id>#<sample>


def shortened(value: object) -> str:
    """Returns a value as a detail: one bounded line without credentials."""
    return bare(value, DETAIL_CHARS)
