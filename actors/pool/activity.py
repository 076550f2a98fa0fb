"""What replicas do that do not compute yet or wait for a program, in words for a progress line."""

from collections.abc import Iterable
from typing import Literal

from actors.protocol.events import Activity, Heartbeat


def describe_activity(heartbeats: Iterable[Heartbeat]) -> Activity:
    """Returns what replicas do that load or compile; of several, the one that has got least far."""
    loading: list[Heartbeat] = []
    compiling: list[Heartbeat] = []
    for heartbeat in heartbeats:
        if heartbeat.doing == "loading" and heartbeat.loaded < 1.0:
            loading.append(heartbeat)
        elif heartbeat.doing in {"loading", "compilation"} and heartbeat.programs:
            compiling.append(heartbeat)

    parts: list[str] = []
    doing: Literal["", "loading", "compiling"] = ""
    if compiling:
        doing = "compiling"
    if loading:
        doing = "loading"
        share = min(heartbeat.loaded for heartbeat in loading)
        parts.append(f"{_count(loading)}loading {100 * share:.0f} %")
    if compiling:
        slowest = max(compiling, key=lambda heartbeat: heartbeat.programs - heartbeat.compiled)
        parts.append(f"{_count(compiling)}compiling {slowest.compiled}/{slowest.programs}")
    return Activity(", ".join(parts), doing, len(compiling))


def _count(heartbeats: list[Heartbeat]) -> str:
    if len(heartbeats) == 1:
        return ""
    return f"{len(heartbeats)} "
