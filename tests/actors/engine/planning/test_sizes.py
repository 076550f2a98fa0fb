import pytest

from actors.engine.config import EngineConfig
from actors.engine.planning.sizes import (
    HOST_CACHE_BYTES,
    MAX_BATCHES_IN_FLIGHT,
    MIN_BATCHES_IN_FLIGHT,
    Devices,
    EngineSizes,
    SizeFlags,
    affordable_tokens,
    cache_bytes_per_token,
    cache_tokens,
    engine_sizes,
)
from actors.model.config import DEMO, GROK_1

EIGHT_H100 = Devices(data_shards=1, model_shards=8, on_gpus=True)
CPU = Devices(data_shards=1, model_shards=1, on_gpus=False)
BFLOAT16 = 2
NO_FLAGS = SizeFlags()


def test_eight_h100_hold_eight_hundred_thousand_tokens_beside_grok_1() -> None:
    """39.6 GB of weights of 72 GB, 85 % of the rest, 32,772 bytes a token."""
    assert 830_000 < affordable_tokens(GROK_1, EIGHT_H100, BFLOAT16) < 850_000


@pytest.mark.parametrize(
    ("request_tokens", "slots", "limit"),
    [(628.0, 512, "products"), (1600.0, 512, "products"), (2500.0, 256, "kv_cache")],
)
def test_slots_on_gpus_follow_the_lengths_of_the_input(
    request_tokens: float, slots: int, limit: str
) -> None:
    sizes = engine_sizes(GROK_1, EIGHT_H100, BFLOAT16, NO_FLAGS, request_tokens)

    assert (sizes.slots, sizes.slot_limit) == (slots, limit)
    assert sizes.prefill_tokens == 8192


@pytest.mark.parametrize("request_tokens", [1.0, 100.0, 628.0, 2500.0, 8192.0])
def test_replica_on_gpus_holds_two_requests_for_each_slot(request_tokens: float) -> None:
    sizes = engine_sizes(GROK_1, EIGHT_H100, BFLOAT16, NO_FLAGS, request_tokens)

    tokens_in_flight = sizes.batches_in_flight * sizes.batch_tokens
    assert MIN_BATCHES_IN_FLIGHT <= sizes.batches_in_flight <= MAX_BATCHES_IN_FLIGHT
    assert tokens_in_flight >= 2 * sizes.slots * request_tokens
    # 8 MB of token ids on the driver for each replica
    assert tokens_in_flight < 5_000_000


def test_unknown_lengths_give_256_slots_on_gpus() -> None:
    sizes = engine_sizes(GROK_1, EIGHT_H100, BFLOAT16, NO_FLAGS)

    assert sizes == EngineSizes(
        slots=256,
        slot_limit="kv_cache",
        prefill_tokens=8192,
        decode_steps=2,
        batch_tokens=8192,
        batches_in_flight=16,
    )


def test_sizes_of_flags_are_kept() -> None:
    flags = SizeFlags(slots=48, prefill_tokens=1000, batch_tokens=500)

    sizes = engine_sizes(GROK_1, EIGHT_H100, BFLOAT16, flags, 628.0)

    assert sizes == EngineSizes(
        slots=48,
        slot_limit="flag",
        prefill_tokens=1000,
        decode_steps=2,
        batch_tokens=500,
        batches_in_flight=64,
    )


def test_prefill_calls_are_not_larger_than_batches() -> None:
    """The remedy for memory in docs/troubleshooting.md is a smaller --batch-tokens."""
    sizes = engine_sizes(GROK_1, EIGHT_H100, BFLOAT16, SizeFlags(batch_tokens=512), 628.0)
    assert sizes.prefill_tokens == 512


@pytest.mark.parametrize(("data_shards", "slots"), [(1, 64), (2, 32), (3, 21), (128, 1)])
def test_cpus_share_64_slots_among_data_shards(data_shards: int, slots: int) -> None:
    sizes = engine_sizes(DEMO, Devices(data_shards, 1, on_gpus=False), BFLOAT16, NO_FLAGS)

    assert sizes == EngineSizes(
        slots,
        "cpu",
        prefill_tokens=2048,
        decode_steps=8,
        batch_tokens=8192,
        batches_in_flight=16,
    )


def test_cache_of_cpus_is_bounded_for_all_devices_together() -> None:
    two = Devices(data_shards=2, model_shards=1, on_gpus=False)
    token_bytes = cache_bytes_per_token(DEMO, 1, BFLOAT16)

    assert affordable_tokens(DEMO, CPU, BFLOAT16) == HOST_CACHE_BYTES // token_bytes
    assert affordable_tokens(DEMO, two, BFLOAT16) == HOST_CACHE_BYTES // 2 // token_bytes


@pytest.mark.parametrize(
    ("engine", "data_shards", "tokens"),
    [
        (EngineConfig(max_len=64, slots=8), 1, 512),
        (EngineConfig(max_len=64, slots=8), 2, 256),
        (EngineConfig(max_len=64, slots=80), 1, 1000),
        (EngineConfig(max_len=64, slots=8, cache_tokens=2000), 1, 2000),
    ],
)
def test_cache_holds_what_slots_fill_or_memory_allows(
    engine: EngineConfig, data_shards: int, tokens: int
) -> None:
    assert cache_tokens(engine, data_shards, affordable=1000) == tokens
