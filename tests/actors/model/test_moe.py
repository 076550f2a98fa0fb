"""Routing and mixing of experts: ties, gates, padding."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from actors.kernels.xla.platform import XLA
from actors.model import sharding
from actors.model.moe import MoE, Router
from tests.actors.model.models import config_of

CONFIG = config_of("mha")  # two of eight experts
EXPERTS = CONFIG.num_experts


def route(logits_E: list[float], *, real: bool = True) -> tuple[list[float], list[int]]:
    """Returns gates and chosen experts of one token with these router logits."""
    x_ND = jnp.zeros((1, CONFIG.emb_size)).at[0, 0].set(1.0)
    w_DE = jnp.zeros((CONFIG.emb_size, EXPERTS)).at[0].set(jnp.array(logits_E))

    def run(x_ND: Any) -> Any:
        return Router(CONFIG, XLA.kernels, name="router")(x_ND, jnp.full(1, real))

    router = hk.transform(run)
    gates_NX, chosen_NX = router.apply({"router": {"w": w_DE}}, None, x_ND)
    return gates_NX[0].tolist(), chosen_NX[0].tolist()


@pytest.mark.parametrize(
    ("logits_E", "expected"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 0], [0, 1]),
        ([0, 0, 0, 2, 0, 0, 2, 0], [3, 6]),
        ([0, 1, 2, 0, 1, 0, 0, 1], [2, 1]),  # a tie for the second place only
        ([0, 0, 0, 0, 0, 0, 1, 2], [7, 6]),
    ],
)
def test_router_gives_ties_to_the_lower_expert(logits_E: list[float], expected: list[int]) -> None:
    gates, chosen = route([float(logit) for logit in logits_E])
    assert chosen == expected
    assert gates == sorted(gates, reverse=True)


def test_router_gates_are_shares_of_all_experts() -> None:
    logits = np.array([0.5, -1, 2, 0, 1, 0.25, -2, 0.75])
    gates, chosen = route(logits.tolist())
    shares = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(gates, shares[chosen], rtol=1e-6)
    assert sum(gates) < 1  # not renormalised


def test_router_chooses_no_expert_for_padding() -> None:
    _, chosen = route([0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0], real=False)
    assert chosen == [EXPERTS, EXPERTS]


def mix(real_N: list[bool], chosen_NX: list[list[int]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns the mixture where expert e returns e + 1 for every token, and the ids it ran."""
    ids: list[np.ndarray] = []

    def grouped_ffn(x_ND: Any, chosen: Any, _: Any) -> Any:
        jax.debug.callback(lambda array: ids.append(np.asarray(array)), chosen)
        tokens, choices = chosen.shape
        results_A1 = chosen.reshape(-1, 1).astype(jnp.float32) + 1
        # the rows of padding may hold anything
        results_A1 = jnp.where(results_A1 == EXPERTS + 1, jnp.nan, results_A1)
        rows_AD = jnp.broadcast_to(results_A1, (chosen.size, x_ND.shape[1]))
        return rows_AD, jnp.arange(tokens * choices).reshape(tokens, choices)

    kernels = XLA.kernels._replace(grouped_ffn=grouped_ffn)

    def run(x: Any, gates: Any, chosen: Any, real: Any) -> Any:
        return MoE(CONFIG, 1, kernels, name="moe")(x, gates, chosen, real)

    shape = (EXPERTS, CONFIG.emb_size, CONFIG.ffn_size)
    params = {
        "moe/linear": {"w": jnp.zeros(shape)},
        "moe/linear_v": {"w": jnp.zeros(shape)},
        "moe/linear_1": {"w": jnp.zeros((shape[0], shape[2], shape[1]))},
    }
    tokens = len(real_N)
    mesh = sharding.make_mesh(1, 1)
    apply = jax.shard_map(
        lambda *arguments: hk.transform(run).apply(params, None, *arguments),
        mesh=mesh,
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    mixed = apply(
        jnp.ones((tokens, CONFIG.emb_size)),
        jnp.tile(jnp.array([0.5, 0.25]), (tokens, 1)),
        jnp.array(chosen_NX, jnp.int32),
        jnp.array(real_N),
    )
    jax.effects_barrier()
    return np.asarray(mixed), ids


def test_moe_mixes_the_chosen_experts_by_their_gates() -> None:
    mixed, _ = mix([True, True], [[0, 1], [7, 2]])
    np.testing.assert_allclose(mixed[0], 0.5 * 1 + 0.25 * 2)
    np.testing.assert_allclose(mixed[1], 0.5 * 8 + 0.25 * 3)


def test_moe_runs_no_expert_for_padding() -> None:
    no_expert = [EXPERTS, EXPERTS]
    mixed, ids = mix([True, False, True], [[0, 1], no_expert, [3, 2]])
    np.testing.assert_array_equal(ids[0], [[0, 1], no_expert, [3, 2]])
    assert (mixed[1] == 0).all()
    assert np.isfinite(mixed).all()
