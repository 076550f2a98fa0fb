import pytest

from actors.pool.activity import describe_activity
from actors.protocol.events import Heartbeat


@pytest.mark.parametrize(
    ("heartbeats", "expected"),
    [
        ([], ""),
        ([Heartbeat("idle"), Heartbeat("step", 2.0)], ""),
        ([Heartbeat("loading", loaded=0.371)], "loading 37 %"),
        ([Heartbeat("loading", loaded=1.0)], ""),
        ([Heartbeat("loading", loaded=1.0, programs=9, compiled=3)], "compiling 3/9"),
        ([Heartbeat("loading", loaded=0.5, programs=9, compiled=3)], "loading 50 %"),
        ([Heartbeat("compilation", 4.0, programs=2, compiled=1)], "compiling 1/2"),
        (
            [
                Heartbeat("loading", loaded=0.5),
                Heartbeat("loading", loaded=0.25),
                Heartbeat("compilation", 1.0, programs=9, compiled=8),
                Heartbeat("compilation", 1.0, programs=9, compiled=3),
                Heartbeat("step"),
            ],
            "2 loading 25 %, 2 compiling 3/9",
        ),
    ],
)
def test_activity_describes_replicas_that_load_or_compile(
    heartbeats: list[Heartbeat], expected: str
) -> None:
    assert describe_activity(heartbeats).text == expected


def test_activity_is_that_of_the_slowest_replica() -> None:
    compiling = Heartbeat("compilation", 1.0, programs=9, compiled=8)
    loading = Heartbeat("loading", loaded=0.5)
    assert describe_activity([Heartbeat("step")]).doing == ""
    assert describe_activity([compiling, compiling]).doing == "compiling"
    assert describe_activity([compiling, compiling]).compiling == 2
    assert describe_activity([compiling, loading]).doing == "loading"
