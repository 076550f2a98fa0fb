"""The attention block on tiny arrays against loops in float64: cap, mask, heads, pages."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from actors.kernels.interface import Placement
from actors.kernels.xla.platform import XLA
from actors.model.attention import MultiHeadAttention
from actors.model.sharding import make_mesh
from tests.actors.model.models import TINY_CONFIG as CONFIG

PAGE_SIZE = 2
PAGES = 5
WIDTH = 3  # pages of a row: 6 positions
TOKENS = 4  # new tokens of a row
START = [0, 2]
COUNT = [4, 3]
PAGE_TABLE = np.array([[3, 1, 4], [0, 2, 4]], np.int32)  # the last page is not in use
HIDDEN_POSITION = 1  # of row 0: a pad inside of the prompt
SHAPE = (PAGES, PAGE_SIZE, CONFIG.num_kv_heads, CONFIG.key_size)
GAIN = 3.0  # of queries: large enough for the cap to matter


def placement() -> Placement:
    rows = len(START)
    positions = np.asarray(START, np.int32)[:, None] + np.arange(TOKENS, dtype=np.int32)
    pages = np.full((rows, TOKENS), PAGES, np.int32)
    live = np.zeros((rows, WIDTH * PAGE_SIZE), np.bool_)
    length = np.asarray(START, np.int32) + np.asarray(COUNT, np.int32)
    for row in range(rows):
        live[row, : length[row]] = True
        for number in range(COUNT[row]):
            pages[row, number] = PAGE_TABLE[row, positions[row, number] // PAGE_SIZE]
    live[0, HIDDEN_POSITION] = False
    cache_positions = np.arange(WIDTH * PAGE_SIZE)
    visible = live[:, None, :] & (cache_positions <= positions[:, :, None])
    arrays = (positions, pages, positions % PAGE_SIZE, PAGE_TABLE, length, live, visible)
    return Placement(*map(jnp.asarray, arrays))


def parameters() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    width = CONFIG.num_q_heads * CONFIG.key_size
    kv_width = CONFIG.num_kv_heads * CONFIG.key_size
    return {
        "query": (GAIN * rng.normal(0, 1, (8, width))).astype(np.float32),
        "key": (GAIN * rng.normal(0, 1, (8, kv_width))).astype(np.float32),
        "value": rng.normal(0, 1, (8, kv_width)).astype(np.float32),
        "linear": rng.normal(0, 1, (width, 8)).astype(np.float32),
    }


def inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns activations and pages of keys and values, random wherever they lie."""
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (len(START), TOKENS, 8)).astype(np.float32)
    keys = rng.normal(0, 3, SHAPE).astype(np.float32)
    values = rng.normal(0, 1, SHAPE).astype(np.float32)
    return x, keys, values


def run_block(x: np.ndarray, keys: np.ndarray, values: np.ndarray) -> list[np.ndarray]:
    params = {f"block/{name}": {"w": jnp.asarray(w)} for name, w in parameters().items()}

    def run(x: Any, keys: Any, values: Any, where: Any) -> Any:
        block = MultiHeadAttention(CONFIG, 1, XLA.kernels, name="block")
        return block(x, keys, values, where)

    mapped = jax.shard_map(
        lambda *arguments: hk.transform(run).apply(params, None, *arguments),
        mesh=make_mesh(1, 1),
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    arrays = map(jnp.asarray, (x, keys, values))
    return [np.asarray(array) for array in jax.jit(mapped)(*arrays, placement())]


def rotated(vector: np.ndarray, position: int) -> np.ndarray:
    half = len(vector) // 2
    angles = position / 10000.0 ** (np.arange(half) / half)
    pairs = (vector[:half] + 1j * vector[half:]) * np.exp(1j * angles)
    return np.concatenate([pairs.real, pairs.imag])


def project(x: np.ndarray, name: str, head: int) -> np.ndarray:
    columns = slice(head * CONFIG.key_size, (head + 1) * CONFIG.key_size)
    return x.astype(np.float64) @ parameters()[name][:, columns]  # type: ignore[no-any-return]


def expected_output(
    x: np.ndarray, keys: np.ndarray, values: np.ndarray, row: int, number: int, cap: float = 30.0
) -> np.ndarray:
    """Returns the block's output for one new token of a row."""
    position = START[row] + number
    heads = []
    for head in range(CONFIG.num_q_heads):
        kv_head = head // (CONFIG.num_q_heads // CONFIG.num_kv_heads)
        query = rotated(project(x[row, number], "query", head), position)
        logits = []
        vectors = []
        for other in range(position + 1):
            if row == 0 and other == HIDDEN_POSITION:
                continue
            if other < START[row]:
                place = (PAGE_TABLE[row, other // PAGE_SIZE], other % PAGE_SIZE, kv_head)
                key = keys[place].astype(np.float64)
                vectors.append(values[place].astype(np.float64))
            else:
                new = x[row, other - START[row]]
                key = rotated(project(new, "key", kv_head), other)
                vectors.append(project(new, "value", kv_head))
            logits.append(cap * np.tanh(query @ key * CONFIG.attn_output_multiplier / cap))
        weights = np.exp(np.asarray(logits) - max(logits))
        heads.append(weights / weights.sum() @ np.asarray(vectors))
    return np.concatenate(heads) @ parameters()["linear"]  # type: ignore[no-any-return]


def test_attention_equals_loops_over_heads_and_positions() -> None:
    x, keys, values = inputs()
    out, _, _ = run_block(x, keys, values)
    without_cap = 0.0
    for row, count in enumerate(COUNT):
        for number in range(count):
            expected = expected_output(x, keys, values, row, number)
            np.testing.assert_allclose(out[row, number], expected, atol=2e-4)
            uncapped = expected_output(x, keys, values, row, number, cap=1e6)
            without_cap = max(without_cap, float(np.abs(uncapped - expected).max()))
    assert without_cap > 1e-2  # so that a missing cap would be noticed


def test_attention_does_not_depend_on_hidden_and_unused_rows() -> None:
    x, keys, values = inputs()
    out, _, _ = run_block(x, keys, values)
    changed = x.copy()
    changed[0, HIDDEN_POSITION] = 9.0
    changed[1, COUNT[1] :] = 9.0  # padding
    keys[4] = np.nan  # not in use
    values[4] = np.nan
    other, _, _ = run_block(changed, keys, values)
    visible = np.ones((len(START), TOKENS), np.bool_)
    visible[0, HIDDEN_POSITION] = False
    visible[1, COUNT[1] :] = False
    np.testing.assert_array_equal(other[visible], out[visible])


def test_attention_does_not_see_later_tokens() -> None:
    x, keys, values = inputs()
    out, _, _ = run_block(x, keys, values)
    changed = x.copy()
    changed[0, 3] = 9.0
    other, _, _ = run_block(changed, keys, values)
    np.testing.assert_array_equal(other[0, :3], out[0, :3])
    assert np.abs(other[0, 3] - out[0, 3]).max() > 1e-2


def test_attention_writes_rotated_keys_and_values() -> None:
    x, keys, values = inputs()
    _, new_keys, new_values = run_block(x, keys, values)
    expected_keys = keys.astype(np.float64)
    expected_values = values.astype(np.float64)
    for row, count in enumerate(COUNT):
        for number in range(count):
            position = START[row] + number
            page = PAGE_TABLE[row, position // PAGE_SIZE]
            for head in range(CONFIG.num_kv_heads):
                place = (page, position % PAGE_SIZE, head)
                key = project(x[row, number], "key", head)
                expected_keys[place] = rotated(key, position)
                expected_values[place] = project(x[row, number], "value", head)
    np.testing.assert_allclose(new_keys, expected_keys, atol=1e-4)
    np.testing.assert_allclose(new_values, expected_values, atol=1e-4)
