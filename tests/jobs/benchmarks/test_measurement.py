import time

from actors.protocol.messages import ReplicaStats
from jobs.benchmarks.measurement import best_seconds, increase, seconds_of


def test_seconds_of_times_one_call() -> None:
    assert 0.01 <= seconds_of(lambda: time.sleep(0.01)) < 1


def test_best_seconds_excludes_the_first_call_and_slow_ones() -> None:
    durations_s = iter([0.0, 0.2, 0.01, 0.2])  # the first call would compile

    assert 0.01 <= best_seconds(lambda: time.sleep(next(durations_s)), tries=3) < 0.2
    assert next(durations_s, None) is None


def test_increase_subtracts_every_counter() -> None:
    before = ReplicaStats(requests=1, decode_s=0.5, programs=2)
    after = ReplicaStats(requests=4, decode_s=2.0, programs=2, up_s=7.0)

    assert increase(before, after) == ReplicaStats(requests=3, decode_s=1.5, up_s=7.0)
