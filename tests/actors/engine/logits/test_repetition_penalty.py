"""RepetitionPenalty on one device and on eight, against plain loops."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from actors.engine.logits.processor import DecodeView
from actors.engine.logits.repetition_penalty import RepetitionPenalty
from actors.model.sharding import make_mesh
from tests import reference

PROCESSOR = RepetitionPenalty()
ROWS, WIDTH, PAGES, PAGE_SIZE, VOCABULARY = 5, 3, 20, 4, 64


@lru_cache
def on_mesh(shards: int) -> Callable[..., Any]:
    """Logits with penalties, of tokens in a cache and one more of each row.

    Jitted once for all cases.
    """

    def body(
        logits_BU: Any, tokens_PZ: Any, pages_BJ: Any, length_B: Any, token_B: Any, penalty_B: Any
    ) -> Any:
        view = DecodeView(token_B, length_B, length_B, pages_BJ, tokens_PZ)
        state = PROCESSOR.start(penalty_B, view, VOCABULARY // shards)
        return PROCESSOR.apply(logits_BU, penalty_B, PROCESSOR.observe(state, view), view)

    split, whole = PartitionSpec(None, "model"), PartitionSpec()
    mapped = jax.shard_map(
        body,
        mesh=make_mesh(1, shards),
        in_specs=(split, *[whole] * 5),
        out_specs=split,
        check_vma=False,
    )
    return jax.jit(mapped)  # type: ignore[no-any-return]


def case(seed: int) -> tuple[np.ndarray, ...]:
    """Pages all over the cache, shared by rows, with other sequences' tokens behind a row's end.

    Negative logits and ties.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (ROWS, VOCABULARY)).round(1).astype(np.float32)
    tokens = rng.integers(0, VOCABULARY, (PAGES, PAGE_SIZE)).astype(np.int32)
    pages = rng.integers(0, PAGES, (ROWS, WIDTH)).astype(np.int32)
    length = rng.integers(0, WIDTH * PAGE_SIZE + 1, ROWS).astype(np.int32)
    last = rng.integers(0, VOCABULARY, ROWS).astype(np.int32)
    penalty = rng.choice(np.array([1.0, 1.3, 0.7, 5.0], np.float32), ROWS)
    return logits, tokens, pages, length, last, penalty


@pytest.mark.parametrize("shards", [1, 8])
def test_penalty_lowers_tokens_of_prompt_and_completion(shards: int) -> None:
    for seed in range(40):
        logits, tokens, pages, length, last, penalty = arrays = case(seed)
        out = np.asarray(on_mesh(shards)(*arrays))
        for row in range(ROWS):
            seen = [*tokens[pages[row]].ravel()[: length[row]].tolist(), int(last[row])]
            expected = reference.penalised(logits[row], seen, penalty[row])
            # XLA divides by one number for a whole row as it multiplies with its inverse: one
            # rounding more
            np.testing.assert_allclose(
                out[row], expected, rtol=2**-22, atol=0, err_msg=f"seed {seed}, row {row}"
            )
            unseen = np.setdiff1d(np.arange(VOCABULARY), seen)
            np.testing.assert_array_equal(out[row][unseen], logits[row][unseen])


def test_penalty_has_equal_bits_on_eight_devices_and_one() -> None:
    for seed in range(5):
        np.testing.assert_array_equal(on_mesh(8)(*case(seed)), on_mesh(1)(*case(seed)))


def test_penalty_of_a_row_does_not_depend_on_its_batch() -> None:
    """Alone among rows without a penalty, and among rows that all have one.

    Without one, no bit of it changes.
    """
    arrays = case(1)
    alone, all_have = np.ones(ROWS, np.float32), np.full(ROWS, 1.7, np.float32)
    alone[2] = 1.7
    mixed, full, none = (
        np.asarray(on_mesh(8)(*arrays[:-1], each))
        for each in (alone, all_have, np.ones(ROWS, np.float32))
    )
    np.testing.assert_array_equal(mixed[2], full[2])
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(mixed[others], arrays[0][others])
    np.testing.assert_array_equal(none, arrays[0])
    assert (full[2] != arrays[0][2]).any()


def test_penalty_above_1_lowers_seen_logits_only() -> None:
    logits, *others, _ = case(2)
    out = np.asarray(on_mesh(1)(logits, *others, np.full(ROWS, 1.5, np.float32)))
    changed = out != logits
    assert (out[changed] < logits[changed]).all()
    assert (logits[changed] < 0).any()
    assert (logits[changed] > 0).any()
