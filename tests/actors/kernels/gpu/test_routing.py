"""The routing kernels of a GPU, run in the interpreter, against NumPy and plain XLA."""

import itertools
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kernels.gpu import routing as gpu_routing
from actors.kernels.gpu.routing import (
    MAX_ROUTER_ROWS,
    ROUTER_PROGRAMS,
    SORTED_BLOCK,
    max_tiles,
    router_rows,
)
from actors.kernels.xla import routing as xla_routing
from tests.actors.kernels.oracle import router_shares

on_gpu = jax.jit(partial(gpu_routing.route, interpret=True), static_argnums=3)
on_xla = jax.jit(xla_routing.route, static_argnums=3)
group = jax.jit(partial(gpu_routing.group_by_expert, interpret=True), static_argnums=(1, 2))
ROUTES = {"gpu": on_gpu, "xla": on_xla}


def inputs(tokens: int, width: int, experts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns activations, a router's weights, and which tokens are real."""
    rng = np.random.default_rng(tokens)
    x_ND = rng.standard_normal((tokens, width)).astype(np.float32)
    w_DE = (2 * rng.standard_normal((width, experts)) / width**0.5).astype(np.float32)
    return x_ND, w_DE, rng.random(tokens) < 0.8


@pytest.mark.parametrize("platform", ROUTES)
@pytest.mark.parametrize(
    ("tokens", "width", "experts", "chosen"),
    [(1, 16, 8, 2), (5, 48, 8, 2), (40, 700, 6, 3), (4 * ROUTER_PROGRAMS + 3, 24, 8, 2)],
)
def test_route_matches_float64(
    tokens: int, width: int, experts: int, chosen: int, platform: str
) -> None:
    x_ND, w_DE, real_N = inputs(tokens, width, experts)
    gates, ids = map(np.asarray, ROUTES[platform](x_ND, w_DE, real_N, chosen))
    shares_NE = router_shares(x_ND, w_DE)
    expected = np.argsort(-shares_NE, axis=1, kind="stable")[:, :chosen]
    np.testing.assert_array_equal(ids, np.where(real_N[:, None], expected, experts))
    np.testing.assert_allclose(gates, np.take_along_axis(shares_NE, expected, 1), rtol=2e-6)


def test_route_gives_gates_and_ids_of_plain_xla_bit_for_bit() -> None:
    """With one number in each row of the router's weights a logit is no sum."""
    tokens, experts = 300, 8
    x_ND = np.random.default_rng(2).standard_normal((tokens, 16)).astype(np.float32)
    # few values, so that many experts of a token are tied
    x_ND[: tokens // 2] = np.round(x_ND[: tokens // 2])
    w_DE = np.eye(16, experts, dtype=np.float32)
    real_N = np.arange(tokens) % 5 > 0
    gpu_gates, gpu_ids = on_gpu(x_ND, w_DE, real_N, 2)
    xla_gates, xla_ids = on_xla(x_ND, w_DE, real_N, 2)
    np.testing.assert_array_equal(gpu_ids, xla_ids)
    np.testing.assert_array_equal(gpu_gates, xla_gates)


@pytest.mark.parametrize(
    ("logits_E", "expected"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 0], [0, 1]),
        ([0, 0, 0, 2, 0, 0, 2, 0], [3, 6]),
        ([0, 1, 2, 0, 1, 0, 0, 1], [2, 1]),  # a tie for the second place only
        ([200, 0, 0, 0, 0, 0, 0, 0], [0, 1]),  # shares of zero are tied
    ],
)
def test_route_gives_ties_to_the_lower_expert(logits_E: list[float], expected: list[int]) -> None:
    w_DE = np.zeros((16, 8), np.float32)
    w_DE[0] = logits_E
    x_ND = np.eye(1, 16, dtype=np.float32)
    _, ids = on_gpu(x_ND, w_DE, np.ones(1, bool), 2)
    assert ids[0].tolist() == expected


@given(st.integers(1, 20_000))
def test_router_rows_are_a_power_of_two_for_enough_programs(tokens: int) -> None:
    rows = router_rows(tokens)
    assert rows & (rows - 1) == 0
    assert rows <= MAX_ROUTER_ROWS
    assert rows == 1 or tokens / rows > ROUTER_PROGRAMS / 2


@pytest.mark.parametrize("tokens", [1, 7, 64, SORTED_BLOCK + 5])
@pytest.mark.parametrize(("experts", "choices"), [(8, 2), (3, 1)])
def test_grouping_is_a_stable_sort_by_expert(tokens: int, experts: int, choices: int) -> None:
    """Padding, anywhere between the others, comes last. Large cases have several blocks."""
    rng = np.random.default_rng(tokens)
    chosen_NX = rng.integers(0, experts + 1, (tokens, choices)).astype(np.int32)
    grouping = group(chosen_NX, experts, 16)
    order_A = np.argsort(chosen_NX.reshape(-1), kind="stable")
    np.testing.assert_array_equal(grouping.token_A, order_A // choices)
    place_A = np.argsort(order_A)
    np.testing.assert_array_equal(grouping.place_NX, place_A.reshape(tokens, choices))


def check_tiles(counts: list[int], assignments: int, rows: int) -> int:
    """Checks the tiles of a routing row by row; returns how many tiles have rows.

    `counts`: assignments of each expert. The assignments that remain are padding.
    """
    experts = len(counts)
    chosen_A = np.full(assignments, experts, np.int32)
    owners = np.repeat(np.arange(experts), counts)
    chosen_A[: len(owners)] = owners
    shuffled_A = np.random.default_rng(1).permutation(chosen_A)
    tiles = group(shuffled_A[:, None], experts, rows).tiles
    expert, begin, end = map(np.asarray, tiles)
    covered = []
    for tile_expert, first, last in zip(expert, begin, end, strict=True):
        assert last - first <= rows
        covered.extend((int(tile_expert), row) for row in range(first, last))
    assert covered == [(int(owner), row) for row, owner in enumerate(owners)]
    return int((end > begin).sum())


def tiles_needed(counts: list[int], rows: int) -> int:
    return sum(-(-count // rows) for count in counts)


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 100), min_size=7, max_size=7), rows=st.sampled_from([16, 32]))
def test_tiles_cover_each_row_of_an_expert_once(cuts: list[int], rows: int) -> None:
    ends = [0, *sorted(cuts), 100]
    counts = [end - begin for begin, end in itertools.pairwise(ends)]
    assert check_tiles(counts, 100, rows) == tiles_needed(counts, rows)


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 25), min_size=8, max_size=8))
def test_tiles_leave_out_the_rows_of_padding(counts: list[int]) -> None:
    assert check_tiles(counts, 8 * 25, 16) == tiles_needed(counts, 16)


@pytest.mark.parametrize("rows", [16, 32])
@pytest.mark.parametrize(
    "counts",
    [
        [64, 0, 0, 0],  # all tokens to one expert, the first, the last, one between
        [0, 0, 0, 64],
        [0, 64, 0, 0],
        [65, 0, 0, 0],
        [32, 32, 32, 32],  # all at the border of a tile, one before, one beyond
        [31, 31, 31, 31],
        [33, 33, 33, 33],
        [33, 1, 1, 1],  # the most tiles that any routing needs
        [17, 17, 17, 17],
        [1, 1, 1, 1],
        [1, 0, 0, 0],
        [0, 0, 0, 0],  # nothing but padding
    ],
)
def test_tiles_of_extreme_routings(counts: list[int], rows: int) -> None:
    assignments = max(1, sum(counts))
    assert check_tiles(counts, assignments, rows) == tiles_needed(counts, rows)


@pytest.mark.parametrize("experts", [1, 2, 3])
def test_max_tiles_is_what_the_worst_routing_needs(experts: int) -> None:
    """Compares with a search of all routings: one tile fewer drops rows, one more costs time."""
    rows = 4
    for assignments in range(1, 14):
        most = 0
        for cuts in itertools.combinations_with_replacement(range(assignments + 1), experts - 1):
            ends = [0, *cuts, assignments]
            counts = [end - begin for begin, end in itertools.pairwise(ends)]
            most = max(most, tiles_needed(counts, rows))
        assert max_tiles(assignments, experts, rows) == most
