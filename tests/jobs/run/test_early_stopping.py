from jobs.run.early_stopping import NEVER_STOP
from pipeline.records import Shard


def test_never_stop_covers_all_shards_and_never_stops() -> None:
    shards = [Shard(number, "rows.parquet", 10 * number, 10) for number in range(3)]

    assert NEVER_STOP.select_shards(shards) == shards
    assert not NEVER_STOP.should_stop(0.0)
    assert not NEVER_STOP.should_stop(1e9)
    assert NEVER_STOP.status() == ""
