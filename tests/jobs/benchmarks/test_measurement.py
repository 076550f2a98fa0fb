from actors.protocol.messages import ReplicaStats
from jobs.benchmarks.measurement import increase


def test_increase_subtracts_every_counter() -> None:
    before = ReplicaStats(requests=1, decode_s=0.5, programs=2)
    after = ReplicaStats(requests=4, decode_s=2.0, programs=2, up_s=7.0)

    assert increase(before, after) == ReplicaStats(requests=3, decode_s=1.5, up_s=7.0)
