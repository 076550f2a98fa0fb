import pytest

from actors.engine.planning.sizes import EngineSizes, engine_sizes


def test_gpus_get_more_slots_and_longer_prefill_calls_than_cpus() -> None:
    on_cpus = engine_sizes(data_shards=1, on_gpus=False)
    on_gpus = engine_sizes(data_shards=1, on_gpus=True)

    assert on_cpus == EngineSizes(slots=64, prefill_tokens=2048)
    assert on_gpus.slots >= 256
    assert on_gpus.prefill_tokens == 8192


@pytest.mark.parametrize(("data_shards", "slots"), [(1, 64), (2, 32), (3, 21), (128, 1)])
def test_cpus_share_their_slots_among_data_shards(data_shards: int, slots: int) -> None:
    assert engine_sizes(data_shards=data_shards, on_gpus=False).slots == slots
