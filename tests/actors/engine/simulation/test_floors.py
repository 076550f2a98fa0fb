import pytest

from actors.engine.planning.device_profiles import KERNELS, REFERENCE_SHARD, load_profile
from actors.engine.simulation.floors import kernel_work, model_shard, touched_experts
from actors.model import arithmetic
from actors.model.config import GROK_1

H100 = load_profile("h100")


def test_reference_shard_is_an_eighth_of_grok_1() -> None:
    assert model_shard(GROK_1, 8) == REFERENCE_SHARD


def test_floors_of_a_decode_layer_match_the_byte_counts_of_the_design() -> None:
    """Per layer at 64 slots and context 512, microseconds on one of eight H100."""
    floors_us = {
        "experts_gate_value": 121,
        "experts_out": 61,
        "attention_decode": 5.1,
        "attention_inputs": 2.2,
        "attention_output": 1.7,
        "norms": 1.9,
        "routing": 0.3,
        "combine": 0.7,
        "all_reduce": 3,
    }
    for kernel, expected_us in floors_us.items():
        work = kernel_work(kernel, REFERENCE_SHARD, 64, 512)
        assert work.floor_s(H100) * 1e6 == pytest.approx(expected_us, rel=0.15), kernel


def test_floors_of_a_prefill_layer_match_the_operations_of_the_design() -> None:
    flops = {
        "experts_gate_value": 412e9,
        "experts_out": 206e9,
        "attention_prefill": 3e9,
    }
    for kernel, expected in flops.items():
        work = kernel_work(kernel, REFERENCE_SHARD, 2048, 512)
        assert work.flops == pytest.approx(expected, rel=0.1), kernel


def test_touched_experts_agree_with_the_arithmetic_of_the_model() -> None:
    for tokens in (1, 2, 8, 64):
        assert touched_experts(REFERENCE_SHARD, tokens) == pytest.approx(
            arithmetic.experts_touched(GROK_1, tokens)
        )


def test_every_kernel_has_a_floor_that_grows_with_tokens() -> None:
    for kernel in KERNELS:
        works = [kernel_work(kernel, REFERENCE_SHARD, tokens, 512) for tokens in (64, 256, 2048)]
        floors_s = [work.floor_s(H100) for work in works]
        assert 0 < floors_s[0] <= floors_s[1] < floors_s[2], kernel


def test_unknown_kernel_has_no_floor() -> None:
    with pytest.raises(ValueError, match="kernel softmax has no floor"):
        kernel_work("softmax", REFERENCE_SHARD, 64)
