"""vocabulary.py: results from logits that are split over devices equal NumPy's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from actors.engine.vocabulary import (
    Likelihood,
    join_rows,
    likelihood,
    most_likely,
    own_rows,
    split_rows,
)
from actors.model.sharding import make_mesh


def on_mesh(body: object, shards: int, *args: object, out: object) -> object:
    mesh = make_mesh(1, shards)
    specs = (PartitionSpec(None, "model"), *[PartitionSpec()] * (len(args) - 1))
    return jax.jit(jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False))(
        *args
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("shards", [1, 8])
def test_likelihood_of_targets(shards: int) -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 4, (6, 32)).astype(np.float32)
    logits[1, 20] = logits[1, 3] = logits[1].max() + 1  # a tie on two devices
    logits[2, 31] = 500.0  # far above: nothing overflows
    target = np.array([0, 20, 31, 7, 8, int(logits[5].argmax())], np.int32)
    k = 5
    out: Likelihood = on_mesh(partial(likelihood, k=k), shards, logits, target, out=PartitionSpec())  # type: ignore[assignment]
    wide = logits.astype(np.float64)
    lse = wide.max(-1) + np.log(np.exp(wide - wide.max(-1, keepdims=True)).sum(-1))
    np.testing.assert_allclose(out.logprob, wide[np.arange(6), target] - lse, atol=2e-5)
    assert np.asarray(out.is_greedy).tolist() == [
        int(logits[i].argmax()) == target[i] for i in range(6)
    ]
    assert not out.is_greedy[1], "of equal logits the lowest id is the greedy one"
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
    np.testing.assert_array_equal(out.top_ids, order)
    np.testing.assert_allclose(
        out.top_logprobs, np.take_along_axis(wide, order, 1) - lse[:, None], atol=2e-5
    )


@pytest.mark.parametrize("shards", [1, 4])
def test_top_logprobs_may_exceed_the_rows_of_a_device(shards: int) -> None:
    logits = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)
    out: Likelihood = on_mesh(
        partial(likelihood, k=7), shards, logits, np.zeros(2, np.int32), out=PartitionSpec()
    )  # type: ignore[assignment]
    np.testing.assert_array_equal(out.top_ids, np.argsort(-logits, axis=-1, kind="stable")[:, :7])


@pytest.mark.parametrize("shards", [1, 8])
@pytest.mark.parametrize("k", [1, 5, 32])
def test_tail_is_the_probability_of_all_other_tokens(k: int, shards: int) -> None:
    logits = np.random.default_rng(5).normal(0, 3, (4, 32)).astype(np.float32)
    logits[1, [2, 20, 31]] = logits[1].max() + 1  # equals on both sides of the border
    logits[2, 31] = 40.0  # leaves next to nothing
    wide = logits.astype(np.float64)
    out: Likelihood = on_mesh(
        partial(likelihood, k=k, with_tail=True),
        shards,
        logits,
        np.zeros(4, np.int32),
        out=PartitionSpec(),
    )  # type: ignore[assignment]
    lse = wide.max(-1) + np.log(np.exp(wide - wide.max(-1, keepdims=True)).sum(-1))
    others = np.sort(wide - lse[:, None], axis=-1)[:, : 32 - k]
    expected = np.log(np.maximum(np.exp(others).sum(axis=-1), np.finfo(np.float32).tiny))
    np.testing.assert_allclose(np.asarray(out.tail_logprobs)[:, 0], expected, rtol=1e-5, atol=2e-5)


def test_most_likely_is_the_lowest_id_of_equals() -> None:
    logits = np.random.default_rng(2).normal(size=(4, 16)).astype(np.float32)
    logits[3, [5, 14]] = 9.0
    np.testing.assert_array_equal(
        on_mesh(most_likely, 8, logits, out=PartitionSpec()), np.argmax(logits, axis=-1)
    )


@pytest.mark.parametrize(("rows", "shards"), [(8, 8), (5, 8), (6, 4), (9, 4), (3, 1)])
def test_rows_are_split_over_devices_and_joined(rows: int, shards: int) -> None:
    """Row counts that devices divide, and that they do not."""
    logits = np.random.default_rng(2).normal(size=(rows, 16)).astype(np.float32)
    weight = np.arange(rows, dtype=np.float32)

    def weighted_sums(local_logits: jax.Array, weight_N: jax.Array) -> tuple[jax.Array, jax.Array]:
        own_logits_RV = split_rows(local_logits)
        own_results_R = own_logits_RV[:, -1] * own_rows(weight_N)
        rows_on_device = jnp.full((1,), own_logits_RV.shape[0])
        return join_rows(own_results_R, rows), rows_on_device

    out = (PartitionSpec(), PartitionSpec("model"))
    results, rows_on_devices = on_mesh(weighted_sums, shards, logits, weight, out=out)  # type: ignore[misc]
    np.testing.assert_array_equal(results, logits[:, -1] * weight)
    assert np.asarray(rows_on_devices).tolist() == [-(-rows // shards)] * shards
