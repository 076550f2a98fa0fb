"""What replicas do that do not compute yet or wait for a program, in words for a progress line."""

from collections.abc import Iterable

from actors.protocol.events import Heartbeat


def describe_activity(heartbeats: Iterable[Heartbeat]) -> str:
    """Returns e.g. "loading 37 %, 2 compiling 3/9"; "" where all replicas compute or idle.

    Of several replicas it is the one that has got least far.
    """
    loading: list[Heartbeat] = []
    compiling: list[Heartbeat] = []
    for heartbeat in heartbeats:
        if heartbeat.doing == "loading" and heartbeat.loaded < 1.0:
            loading.append(heartbeat)
        elif heartbeat.doing in {"loading", "compilation"} and heartbeat.programs:
            compiling.append(heartbeat)

    parts: list[str] = []
    if loading:
        share = min(heartbeat.loaded for heartbeat in loading)
        parts.append(f"{_count(loading)}loading {100 * share:.0f} %")
    if compiling:
        slowest = max(compiling, key=lambda heartbeat: heartbeat.programs - heartbeat.compiled)
        parts.append(f"{_count(compiling)}compiling {slowest.compiled}/{slowest.programs}")
    return ", ".join(parts)


def _count(heartbeats: list[Heartbeat]) -> str:
    if len(heartbeats) == 1:
        return ""
    return f"{len(heartbeats)} "
