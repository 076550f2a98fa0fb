"""One step of the model against itself in other forms, and against the NumPy oracle."""

import atexit
import shutil
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import jax.numpy as jnp
import numpy as np
import pytest

from actors.model.config import ModelConfig
from actors.model.language_model import Cache
from actors.weights import checkpoint
from tests import reference
from tests.actors.model.models import TinyModel, assert_close, load_model

pytestmark = pytest.mark.slow  # compiles

TINY = ModelConfig(
    vocab_size=96,
    emb_size=32,
    widening_factor=2,
    key_size=8,
    num_q_heads=8,
    num_kv_heads=4,
    num_layers=2,
    attn_output_multiplier=8**-0.5,
    embedding_multiplier_scale=78.4,
    output_multiplier_scale=0.6,
    sequence_len=64,
)
PROMPT = [5, 9, 61, 9, 2, 80, 33, 12, 7, 44, 0, 3, 95, 18, 1, 27, 50]  # EOS and pad inside
SAME = 2e-5  # float32, another order of sums


@lru_cache
def folder(config: ModelConfig, seed: int = 3) -> Path:
    path = Path(mkdtemp(prefix="model-"))
    atexit.register(shutil.rmtree, path)
    checkpoint.write(checkpoint.random_parameters(config, seed), path)
    return path


@lru_cache
def tiny() -> TinyModel:
    return load_model(folder(TINY), TINY, (1, 1))


@lru_cache
def whole() -> np.ndarray:
    return tiny().prefill([PROMPT]).logits[0]


@pytest.mark.parametrize("pieces", [[1] * 17, [16, 1], [5, 4, 8], [8, 8, 1]], ids=str)
def test_pieces_and_decode_match_one_forward(pieces: list[int]) -> None:
    model, cache, done, logits = tiny(), tiny().cache(), 0, []
    for size in pieces:
        outputs, cache = model.step(
            cache, [PROMPT[done : done + size]], start=[done], width=max(pieces)
        )
        logits.append(outputs.logits[0, :size])
        done += size
    assert_close(np.concatenate(logits), whole(), atol=SAME)


def test_padding_does_not_change_logits() -> None:
    assert_close(tiny().prefill([PROMPT], width=24).logits[0, : len(PROMPT)], whole(), atol=SAME)


def test_logits_have_the_same_bits_in_any_batch() -> None:
    rng = np.random.default_rng(0)
    mates = [rng.integers(0, 96, length).tolist() for length in (17, 9, 1)]
    together = tiny().prefill([PROMPT, *mates]).logits[0]
    # to the last bit: same shapes, same order of sums
    np.testing.assert_array_equal(together, whole())


def test_unused_pages_do_not_change_logits() -> None:
    clean = tiny().cache()
    dirty = Cache(
        keys=tuple(jnp.full_like(k, jnp.nan) for k in clean.keys),
        values=tuple(jnp.full_like(v, jnp.nan) for v in clean.values),
        tokens=jnp.full_like(clean.tokens, 7),
    )
    outputs, cache = tiny().step(dirty, [PROMPT[:9], [0, 0, 4]], width=17)
    expected, clean = tiny().step(clean, [PROMPT[:9], [0, 0, 4]], width=17)
    np.testing.assert_array_equal(outputs.logits[0, :9], expected.logits[0, :9])
    np.testing.assert_array_equal(outputs.logits[1, :3], expected.logits[1, :3])
    outputs, _ = tiny().step(cache, [PROMPT[9:], [5]], start=[9, 3], width=17)
    assert_close(outputs.logits[0, :8], whole()[9:], atol=SAME)
    assert np.isfinite(outputs.logits).all()  # rows of padding and idle rows too


def test_pages_of_other_sequences_are_not_written() -> None:
    _, cache = tiny().step(tiny().cache(), [PROMPT], width=24)
    owned = tiny().table[0][:3]
    others = np.setdiff1d(np.arange(tiny().lane_pages), owned)
    assert not np.asarray(cache.tokens)[others].any()
    assert not any(np.asarray(pages)[others].any() for pages in (*cache.keys, *cache.values))
    np.testing.assert_array_equal(
        np.asarray(cache.tokens)[tiny().table[0]].reshape(-1)[: len(PROMPT)], PROMPT
    )


def test_pad_is_masked_in_prefill_and_decode() -> None:
    # a pad takes a position, its value does not matter to anybody after it
    model = tiny()
    outputs, cache = model.step(model.cache(), [[5, 9, 0]])
    decoded, _ = model.step(cache, [[61]], start=[3])
    one_go = model.prefill([[5, 9, 0, 61]]).logits[0]
    assert_close(outputs.logits[0], one_go[:3], atol=SAME)
    assert_close(decoded.logits[0, 0], one_go[3], atol=SAME)
    expected = reference.logits(reference.parameters(folder(TINY), TINY), TINY, [5, 9, 0, 61])
    assert_close(one_go, expected, atol=2e-4)


def test_query_without_visible_keys_depends_on_nothing() -> None:
    first = tiny().prefill([[0, 5, 9], [0, 61, 1]]).logits
    np.testing.assert_array_equal(first[0, 0], first[1, 0])
    expected = reference.logits(reference.parameters(folder(TINY), TINY), TINY, [0, 5, 9])
    assert_close(first[0], expected, atol=2e-4)


def test_prompt_of_one_token() -> None:
    expected = reference.logits(reference.parameters(folder(TINY), TINY), TINY, [2])
    assert_close(tiny().prefill([[2]]).logits[0], expected, atol=2e-4)


ODD_SHAPES = {
    "three-shards-groups-do-not-match": (
        ModelConfig(
            60, 12, 3, 8, 6, 3, 2, 0.3, 20.0, 0.7, 32, num_experts=5, num_selected_experts=3
        ),
        (1, 3),
    ),
    "one-of-three-experts": (
        ModelConfig(
            64, 40, 1, 4, 4, 2, 1, 0.5, 30.0, 1.3, 32, num_experts=3, num_selected_experts=1
        ),
        (2, 2),
    ),
    "all-experts": (
        ModelConfig(
            33, 24, 2.5, 16, 1, 1, 3, 0.25, 5.0, 2.0, 32, num_experts=2, num_selected_experts=2
        ),
        (1, 1),
    ),
}


@pytest.mark.parametrize("shape", ODD_SHAPES)
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "int8"])
def test_odd_shapes_match_the_oracle(shape: str, dense: bool) -> None:
    config, mesh = ODD_SHAPES[shape]
    model = load_model(folder(config), config, mesh, dense=dense, rows=2, pages_per_row=3)
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, config.vocab_size, length).tolist() for length in (19, 11)]
    params = reference.parameters(folder(config), config)
    outputs = model.prefill(rows)
    for b, row in enumerate(rows):
        assert_close(
            outputs.logits[b, : len(row)], reference.logits(params, config, row), atol=3e-4
        )


def test_random_weights_spread_logits_moderately() -> None:
    spread = reference.logits(reference.parameters(folder(TINY), TINY), TINY, PROMPT).std()
    assert 1.0 < spread < 4.0
