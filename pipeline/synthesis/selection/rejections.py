"""Why a sample is not in the data set: the stage that left it out, a reason that is counted, and what was wrong with this one."""

from dataclasses import dataclass
from typing import Literal

Stage = Literal[
    "template", "generation", "filter", "parse", "where", "choose", "partition", "duplicate", "stop"
]
# in the order in which they judge; `stop` also goes before generation: what is not needed
STAGES: tuple[Stage, ...] = (
    "template", "generation", "filter", "parse", "where", "choose", "partition", "duplicate", "stop",
)  # fmt: skip
DETAIL_CHARS = 500


@dataclass(frozen=True, slots=True)
class Rejection:
    """One sample's, or one seed row's."""

    stage: Stage
    reason: str  # one of few: it is counted
    detail: str | None = None
    duplicate_of: str | None = None  # the accepted sample that it repeats, <id>#<sample>


def shortened(text: object) -> str:
    """Returns a detail of bounded length."""
    shown = str(text)
    return shown if len(shown) <= DETAIL_CHARS else shown[: DETAIL_CHARS - 1] + "…"
