"""Operations and bytes of a step, against sums written out for a small model."""

import itertools

import pytest

from actors.model.arithmetic import (
    cache_bytes,
    experts_touched,
    projection_flops,
    step_weight_bytes,
    token_flops,
)
from actors.model.config import ModelConfig

# D = 16, H x C = 32, K x C = 16, F = 2/3 x 2 x 16 = 21 -> 24
MODEL = ModelConfig(
    vocab_size=50,
    emb_size=16,
    widening_factor=2,
    key_size=8,
    num_q_heads=4,
    num_kv_heads=2,
    num_layers=3,
    attn_output_multiplier=1.0,
    embedding_multiplier_scale=1.0,
    output_multiplier_scale=1.0,
    sequence_len=64,
    num_experts=4,
    num_selected_experts=2,
)
ATTENTION_WEIGHTS = 16 * 32 + 2 * 16 * 16 + 32 * 16
EXPERT_WEIGHTS = 3 * 16 * 24
ROUTER = 16 * 4


def test_token_flops_count_chosen_experts_and_visible_keys() -> None:
    assert MODEL.ffn_size == 24
    weights = 3 * (ATTENTION_WEIGHTS + 2 * EXPERT_WEIGHTS + ROUTER)
    assert token_flops(MODEL, 0.0) == 2 * weights
    products_per_key = 3 * 4 * 8 * 2  # layers, heads, width; logits and values
    assert token_flops(MODEL, 10.0) == 2 * (weights + 10 * products_per_key)
    assert projection_flops(MODEL) == 2 * 50 * 16


@pytest.mark.parametrize("tokens", [0, 1, 2, 3])
def test_experts_touched_is_the_mean_over_all_routings(tokens: int) -> None:
    pairs = list(itertools.combinations(range(4), 2))
    routings = list(itertools.product(pairs, repeat=tokens))
    touched = sum(len(set(itertools.chain(*routing))) for routing in routings)
    assert experts_touched(MODEL, tokens) == pytest.approx(touched / len(routings))


def test_step_weight_bytes_of_stored_and_of_dense_weights() -> None:
    norms = 4 * (3 * 4 * 16 + 16)  # float32, four per layer and the last
    router = 4 * 3 * ROUTER
    table = 50 * 16
    attention_scales = 2 * (32 + 2 * 16 + 8 * 16)
    expert_scales = 2 * (2 * 24 + 8 * 16)
    attention = 3 * (ATTENTION_WEIGHTS + attention_scales)
    experts = 3 * 4 * (EXPERT_WEIGHTS + expert_scales)
    share = experts_touched(MODEL, 1) / 4
    stored = norms + router + 4 * table + attention + share * experts
    assert step_weight_bytes(MODEL, 1) == pytest.approx(stored)

    dense_weights = 3 * (ATTENTION_WEIGHTS + share * 4 * EXPERT_WEIGHTS)
    dense = norms + router + 2 * table + 2 * dense_weights
    computed = step_weight_bytes(MODEL, 1, dense_itemsize=2, table_itemsize=2)
    assert computed == pytest.approx(dense)


def test_cache_bytes_of_one_token() -> None:
    assert cache_bytes(MODEL, 2) == 2 * 3 * 2 * 8 * 2  # keys and values, layers, heads, width, size
