"""sampling.py against the reference's own sampler and against probability."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from actors.engine.sampling import (
    MASKED,
    SamplingArrays,
    filter_logits,
    mask_eos,
    mask_unlikely,
    mass_border,
    sample_tokens,
    tempered,
)
from tests import reference
from tests.actors.engine.engines import CONFORMANCE


def draw(rows: int, **fields: object) -> SamplingArrays:
    defaults = {
        "temperature": jnp.ones(rows),
        "top_p": jnp.ones(rows),
        "top_k": jnp.zeros(rows, jnp.int32),
        "seed": jnp.stack(
            [jnp.zeros(rows, jnp.uint32), jnp.arange(rows, dtype=jnp.uint32)], axis=1
        ),
        "position": jnp.zeros(rows, jnp.int32),
        "min_p": jnp.zeros(rows),
        "eos_from": jnp.zeros(rows, jnp.int32),
    }
    return SamplingArrays(**{**defaults, **fields})  # type: ignore[arg-type]


def test_reference_sampler_goldens() -> None:
    """Temperature, nucleus and mask as the reference computes them.

    Row 9 holds an exact tie at the border, both kept.
    """
    with np.load(CONFORMANCE / "sampler.npz") as z:
        gold = dict(z)
    masked = jnp.where(jnp.asarray(gold["mask"]) > 0, jnp.asarray(gold["logits"]), MASKED)
    scaled = tempered(masked, jnp.asarray(gold["temperature"]))
    rows = len(gold["temperature"])
    kept = filter_logits(scaled, jnp.zeros(rows, jnp.int32), jnp.asarray(gold["nucleus_p"]))
    np.testing.assert_array_equal(np.asarray(kept > MASKED / 2), gold["keep"] > 0)
    np.testing.assert_allclose(jax.nn.softmax(kept, axis=-1), gold["probs"], atol=2e-6)


def test_top_k_keeps_ties_and_precedes_top_p() -> None:
    logits = jnp.log(jnp.array([[0.4, 0.3, 0.2, 0.1], [0.4, 0.2, 0.2, 0.2]]))
    kept = filter_logits(logits, jnp.array([2, 2], jnp.int32), jnp.ones(2)) > MASKED / 2
    np.testing.assert_array_equal(kept, [[True, True, False, False], [True, True, True, True]])
    # of the two left, the first has 0.4 / 0.7 = 0.57 of the mass: enough for 0.5, not for 0.6
    for top_p, expected in ((0.5, 1), (0.6, 2)):
        kept = filter_logits(logits[:1], jnp.array([2], jnp.int32), jnp.array([top_p])) > MASKED / 2
        assert int(kept.sum()) == expected


def test_greedy_rows_take_the_lowest_id_and_ignore_filters() -> None:
    logits = jnp.array([[1.0, 3.0, 3.0, 0.0]] * 2)
    tokens = sample_tokens(
        logits, draw(2, temperature=jnp.array([0.0, 1e-4]), top_k=jnp.array([1, 1], jnp.int32))
    )
    assert int(tokens[0]) == 1
    assert int(tokens[1]) in (1, 2)


def test_samples_follow_the_distribution() -> None:
    """4,096 seeds: frequencies within four standard errors.

    And a row's draw is the same alone as in company.
    """
    rows, probs = 4096, np.array([0.5, 0.25, 0.15, 0.1], np.float32)
    logits = jnp.tile(jnp.log(jnp.asarray(probs)), (rows, 1))
    tokens = np.asarray(sample_tokens(logits, draw(rows)))
    counts = np.bincount(tokens, minlength=4) / rows
    assert np.all(np.abs(counts - probs) < 4 * np.sqrt(probs * (1 - probs) / rows))
    alone = draw(rows)
    for row in (0, 17, 4095):
        one = jax.tree.map(lambda x, row=row: x[row : row + 1], alone)
        assert int(sample_tokens(logits[:1], one)[0]) == tokens[row]


def test_sample_depends_on_position_and_temperature() -> None:
    rows = 512
    logits = jnp.tile(jnp.log(jnp.array([[0.4, 0.3, 0.2, 0.1]])), (rows, 1))
    first, second = (
        np.asarray(sample_tokens(logits, draw(rows, position=jnp.full(rows, p, jnp.int32))))
        for p in (0, 1)
    )
    assert 0.1 < np.mean(first != second) < 0.95
    cold = np.asarray(sample_tokens(logits, draw(rows, temperature=jnp.full(rows, 0.25))))
    assert np.mean(cold == 0) > np.mean(first == 0) + 0.15


def test_eos_is_masked_before_min_tokens() -> None:
    logits = jnp.array([[0.0, 0.0, 9.0]] * 2)
    state = draw(2, position=jnp.array([1, 2], jnp.int32), eos_from=jnp.array([2, 2], jnp.int32))
    hidden = mask_eos(logits, state, eos_token=2, first_id=0)
    assert np.asarray(jnp.argmax(hidden, axis=-1)).tolist() == [0, 2]
    shifted = mask_eos(logits, state, eos_token=2, first_id=2)
    assert float(shifted[0, 0]) < -1e29, "the mask follows vocabulary ids, not columns"


def test_min_p_threshold_follows_the_most_likely_token() -> None:
    """What it is for (arXiv:2407.01082): the threshold follows the most likely token.

    A sure row is cut, an open one is not.
    """
    sure, open_ = [0.9, 0.05, 0.03, 0.02], [0.3, 0.25, 0.24, 0.21]
    logits = jnp.log(jnp.array([sure, open_, open_, sure]))
    kept = mask_unlikely(logits, jnp.array([0.1, 0.1, 0.0, 1.0])) > MASKED / 2
    np.testing.assert_array_equal(kept, [[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0]])
    tied = mask_unlikely(jnp.array([[2.0, 5.0, 5.0]]), jnp.array([1.0])) > MASKED / 2
    np.testing.assert_array_equal(
        tied, [[0, 1, 1]], err_msg="min_p 1: those as likely as the most likely one"
    )


def test_filters_apply_min_p_before_top_p() -> None:
    """Min-p is applied before top-p.

    Of all tokens, two reach a mass of 0.5. Of the three that min-p leaves (0.8 of the mass), the
    first one does.
    """
    logits = jnp.log(jnp.array([[0.42, 0.2, 0.18, 0.1, 0.1]]))
    alone = filter_logits(logits, jnp.array([0], jnp.int32), jnp.array([0.5]))
    both = filter_logits(
        mask_unlikely(logits, jnp.array([0.4])), jnp.array([0], jnp.int32), jnp.array([0.5])
    )
    assert [int((each > MASKED / 2).sum()) for each in (alone, both)] == [2, 1]


def test_temperature_applies_before_min_p() -> None:
    rows = 2048
    logits = jnp.tile(jnp.log(jnp.array([[0.6, 0.3, 0.1]])), (rows, 1))
    for temperature, expected in ((1.0, {0, 1}), (4.0, {0, 1, 2}), (0.5, {0})):
        state = draw(rows, min_p=jnp.full(rows, 0.4), temperature=jnp.full(rows, temperature))
        assert set(np.asarray(sample_tokens(logits, state)).tolist()) == expected


@jax.jit  # op by op, a case takes ten times as long
def filtered(logits_BV: Any, min_p_B: Any, top_k_B: Any, top_p_B: Any) -> Any:
    return filter_logits(mask_unlikely(logits_BV, min_p_B), top_k_B, top_p_B)


@settings(deadline=None)
@given(
    st.lists(st.integers(-12, 12), min_size=9, max_size=9),
    st.sampled_from([0.0, 0.03, 0.21, 0.6, 1.0]),
    st.integers(0, 10),
    st.sampled_from([0.07, 0.31, 0.62, 0.93, 1.0]),
)
@example([0, 0, 0, 0, 0, 0, 0, 0, 1], 0.0, 2, 0.31)  # equals of the k-th token are part of the mass
def test_filters_equal_plain_loops(
    halves: list[int], min_p: float, top_k: int, top_p: float
) -> None:
    """Logits in halves: many ties.

    Cases in which the mass reaches top_p to within rounding are left out.
    """
    logits = np.array(halves, np.float32) / 2
    left = reference.may_be_drawn(logits, min_p=min_p, top_k=top_k, top_p=1.0)
    chance = np.sort(np.exp(logits[sorted(left)].astype(np.float64)))[::-1]
    assume(np.abs(np.cumsum(chance) / chance.sum() - top_p).min() > 1e-5 or top_p == 1.0)
    kept = filtered(
        logits[None], np.float32([min_p]), np.array([top_k], np.int32), np.float32([top_p])
    )
    expected = reference.may_be_drawn(logits, min_p=min_p, top_k=top_k, top_p=top_p)
    assert set(np.flatnonzero(np.asarray(kept[0]) > MASKED / 2).tolist()) == expected


LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).tiny)
ADVERSARIAL_ROWS = {
    "all equal": [1.5] * 8,
    "all masked": [MASKED] * 8,
    "some masked": [2.0, MASKED, 1.0, MASKED, 2.0, MASKED, 1.0, -3.0],
    "minus infinity": [0.5, -np.inf, 0.25, -np.inf, 0.5, -np.inf, -np.inf, -1.0],
    "infinity": [np.inf, 3.0, np.inf, 2.0, 1.0, 0.0, -np.inf, np.inf],
    "largest numbers": [LARGEST, -LARGEST, LARGEST, 0.0, 1.0, -1.0, -LARGEST, 2.0],
    "both zeros": [0.0, -0.0, -1.0, -0.0, 0.0, -1.0, SMALLEST, -SMALLEST],
    "neighbours": np.nextafter(np.float32(7.0), np.float32(8.0)).repeat(4).tolist() + [7.0] * 4,
    "ties at every rank": [3.0, 3.0, 2.0, 2.0, 1.0, 1.0, 0.0, 0.0],
}


@pytest.mark.parametrize("name", ADVERSARIAL_ROWS)
def test_top_k_border_is_the_k_th_largest_number(name: str) -> None:
    row = np.asarray(ADVERSARIAL_ROWS[name], np.float32)
    tokens = len(row)
    counts = jnp.arange(1, tokens + 1, dtype=jnp.int32)
    logits = jnp.tile(jnp.asarray(row), (tokens, 1))
    borders = mass_border(logits, jnp.ones((), jnp.int32), counts)
    kept = np.asarray(filter_logits(logits, counts, jnp.ones(tokens)))
    descending = -np.sort(-row)
    for count in range(1, tokens + 1):
        assert borders[count - 1] == descending[count - 1]
        expected = np.where(row >= descending[count - 1], row, np.float32(MASKED))
        np.testing.assert_array_equal(kept[count - 1], expected)


def kept_by_sorting(row: np.ndarray, top_k: int, top_p: float) -> set[int]:
    """Returns the tokens that top-k, then top-p keep, by walking down the sorted row."""
    descending = -np.sort(-row)
    if top_k:
        descending = descending[descending >= descending[top_k - 1]]
    is_peak = descending == descending[0]
    with np.errstate(invalid="ignore"):
        differences = descending.astype(np.float64) - descending[0]
    chances = np.where(is_peak, 1.0, np.exp(differences))
    border = descending[0]
    mass = 0.0
    for logit, chance in zip(descending, chances, strict=True):
        if top_p < 1.0 and mass >= top_p * chances.sum():
            break
        border = logit
        mass += chance
    return set(np.flatnonzero(row >= border).tolist())


@pytest.mark.parametrize("name", ADVERSARIAL_ROWS)
def test_filters_keep_the_tokens_of_a_sort(name: str) -> None:
    row = np.asarray(ADVERSARIAL_ROWS[name], np.float32)
    # shares that no sum of these rows' equal masses reaches exactly
    cases = [(top_k, top_p) for top_k in (0, 1, 3, 8) for top_p in (1e-6, 0.3, 0.68, 0.999, 1.0)]
    logits = jnp.tile(jnp.asarray(row), (len(cases), 1))
    top_k = jnp.asarray([case[0] for case in cases], jnp.int32)
    top_p = jnp.asarray([case[1] for case in cases], jnp.float32)
    kept = np.asarray(filter_logits(logits, top_k, top_p))
    for case, kept_row in zip(cases, kept, strict=True):
        # tokens that are masked before count as kept: they stay as they are
        expected = kept_by_sorting(row, *case)
        unmasked = set(np.flatnonzero(row > MASKED / 2).tolist())
        assert set(np.flatnonzero(kept_row > MASKED / 2).tolist()) == expected & unmasked, case


def test_filters_of_a_large_vocabulary_equal_those_of_a_sort() -> None:
    """Logits in steps of 1/64: some hundred tokens are equal at each border."""
    rng = np.random.default_rng(3)
    rows = np.round(rng.normal(0, 3, (4, 16384)) * 64).astype(np.float32) / 64
    cases = [(0, 0.9), (50, 1.0), (200, 0.95), (0, 0.5)]
    top_k = jnp.asarray([case[0] for case in cases], jnp.int32)
    top_p = jnp.asarray([case[1] for case in cases], jnp.float32)
    kept = np.asarray(filter_logits(jnp.asarray(rows), top_k, top_p))
    for row, case, kept_row in zip(rows, cases, kept, strict=True):
        assert set(np.flatnonzero(kept_row > MASKED / 2).tolist()) == kept_by_sorting(row, *case)


@pytest.mark.parametrize(
    "filters", [{}, {"min_p": 0.3}, {"top_k": 3}, {"min_p": 0.1, "top_p": 0.7}]
)
def test_filtered_row_does_not_depend_on_filters_of_others(
    filters: dict[str, float],
) -> None:
    """Filters of other rows switch branches of the program on.

    A row's own draw is not touched by them.
    """
    rows = 256
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 2, (rows, 24)).astype(np.float32))
    own = {"min_p": jnp.zeros(rows), "top_p": jnp.ones(rows), "top_k": jnp.zeros(rows, jnp.int32)}
    own |= {name: jnp.full(rows, value, own[name].dtype) for name, value in filters.items()}
    alone = np.asarray(sample_tokens(logits, draw(rows, **own)))
    odd = jnp.arange(rows) % 2 == 1
    strict = {
        "min_p": jnp.full(rows, 0.9),
        "top_p": jnp.full(rows, 0.05),
        "top_k": jnp.full(rows, 2, jnp.int32),
    }
    mixed = {name: jnp.where(odd, strict[name], own[name]) for name in own}
    together = np.asarray(sample_tokens(logits, draw(rows, **mixed)))
    np.testing.assert_array_equal(together[::2], alone[::2])
    assert (together[1::2] != alone[1::2]).any()


def test_sampling_applies_min_p_before_top_p() -> None:
    """Of 0.8 that min-p leaves, the first token has half; of all, top-p would take two."""
    rows = 512
    logits = jnp.tile(jnp.log(jnp.array([[0.42, 0.2, 0.18, 0.1, 0.1]])), (rows, 1))
    state = draw(rows, min_p=jnp.full(rows, 0.4), top_p=jnp.full(rows, 0.5))
    assert set(np.asarray(sample_tokens(logits, state)).tolist()) == {0}
    without = draw(rows, top_p=jnp.full(rows, 0.5))
    assert set(np.asarray(sample_tokens(logits, without)).tolist()) == {0, 1}
