"""The CPU's experts in machine code, with every instruction set of this CPU, against the oracle."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.kernels.cpu.code import instruction_sets
from actors.kernels.cpu.experts import grouped_ffn, packed_grouped_ffn
from actors.kernels.cpu.layout import pack_experts
from actors.kernels.cpu.tiles import AVX2, AVX2_PAIRS, InstructionSet
from actors.kernels.interface import Experts
from actors.kernels.xla import experts as xla_experts
from tests.actors.kernels.oracle import expert_rows, quantized_experts

ROOT = Path(__file__).parents[4]
MACHINES = [*instruction_sets(), *([AVX2_PAIRS] if AVX2 in instruction_sets() else [])]
if not MACHINES:
    pytest.skip(
        "this CPU has none of the instruction sets that the kernels are written for",
        allow_module_level=True,
    )

E, D, F, TOKENS = 4, 32, 96, 40
ROUTINGS = {
    "even": np.stack([np.arange(TOKENS) % E, (np.arange(TOKENS) + 1) % E], 1),
    "skewed": np.tile([[2, 3]], (TOKENS, 1)),
    "padded": np.where(np.arange(TOKENS)[:, None] % 3 == 0, E, [[0, 3]]),
    "idle": np.full((TOKENS, 2), E),
    "one": np.array([[1, 0]]),
}
every_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
run = jax.jit(grouped_ffn)
on_xla = jax.jit(xla_experts.grouped_ffn)


def activations(tokens: int, width: int = D) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((tokens, width)).astype(np.float32)


def packed(weights: Experts, machine: InstructionSet) -> Experts:
    gate, value, out = (pack_experts(weight, machine) for weight in weights)  # type: ignore[arg-type]
    return gate, value, out


def computed(
    x_ND: np.ndarray, chosen: np.ndarray, weights: Experts, dtype: str = "float32"
) -> np.ndarray:
    """Returns every (token, choice)'s row."""
    rows, place = run(jnp.asarray(x_ND, dtype), jnp.asarray(chosen, jnp.int32), weights)
    return np.asarray(rows.astype(jnp.float32))[np.asarray(place)]


def rounded(x: np.ndarray) -> np.ndarray:
    return np.asarray(jnp.asarray(x, jnp.bfloat16).astype(jnp.float32))


@every_machine
@pytest.mark.parametrize("routing", ROUTINGS)
def test_experts_match_the_oracle_for_any_kind_of_routing(
    routing: str, machine: InstructionSet
) -> None:
    chosen, weights = ROUTINGS[routing], quantized_experts(E, D, F)
    x = activations(len(chosen))
    expected = expert_rows(rounded(x) if machine.pairs else x, chosen, weights)
    if machine.pairs:
        np.testing.assert_allclose(
            computed(x, chosen, packed(weights, machine), "bfloat16"),
            expected,
            rtol=2**-7,
            atol=2**-7,
        )
    else:
        np.testing.assert_allclose(
            computed(x, chosen, packed(weights, machine)), expected, rtol=0, atol=2e-5
        )


@every_machine
@pytest.mark.parametrize(
    ("width", "ffn", "groups"), [(32, 72, 4), (40, 200, 4), (64, 342, 1), (34, 30, 5)]
)
def test_experts_with_scale_groups_and_widths_no_panel_divides(
    width: int, ffn: int, groups: int, machine: InstructionSet
) -> None:
    chosen, weights, x = (
        ROUTINGS["even"],
        quantized_experts(E, width, ffn, groups),
        activations(TOKENS, width),
    )
    expected = expert_rows(rounded(x), chosen, weights)
    np.testing.assert_allclose(
        computed(x, chosen, packed(weights, machine), "bfloat16"), expected, rtol=2**-7, atol=2**-7
    )


@settings(deadline=None, max_examples=25)
@given(
    routing=st.lists(st.tuples(st.integers(0, E), st.integers(0, E)), min_size=1, max_size=150),
    machine=st.sampled_from([machine for machine in MACHINES if not machine.pairs]),
)
def test_experts_match_the_oracle_for_random_routings(
    routing: list[tuple[int, int]], machine: InstructionSet
) -> None:
    chosen, weights = np.array(routing), quantized_experts(E, D, F)
    x = activations(len(chosen))
    np.testing.assert_allclose(
        computed(x, chosen, packed(weights, machine)),
        expert_rows(x, chosen, weights),
        rtol=0,
        atol=2e-5,
    )


@every_machine
def test_experts_of_more_rows_than_the_scratch_memory_holds(machine: InstructionSet) -> None:
    chosen, weights, x = (
        ROUTINGS["even"],
        packed(quantized_experts(E, D, F), machine),
        activations(TOKENS),
    )
    whole = computed(x, chosen, weights, "bfloat16")
    x_ND, chosen_NX = jnp.asarray(x, jnp.bfloat16), jnp.asarray(chosen, jnp.int32)
    rows, place = packed_grouped_ffn(x_ND, chosen_NX, weights, scratch_rows=7)  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.asarray(rows.astype(jnp.float32))[np.asarray(place)], whole)


@every_machine
def test_experts_round_as_plain_xla_does_in_bfloat16(machine: InstructionSet) -> None:
    chosen, weights, x = ROUTINGS["even"], quantized_experts(E, D, F), activations(TOKENS)
    rows, place = on_xla(jnp.asarray(x, jnp.bfloat16), jnp.asarray(chosen, jnp.int32), weights)
    xla = np.asarray(rows.astype(jnp.float32))[np.asarray(place)]
    np.testing.assert_allclose(
        computed(x, chosen, packed(weights, machine), "bfloat16"), xla, rtol=2**-7, atol=2**-8
    )


@every_machine
def test_row_has_the_same_bits_in_any_batch(machine: InstructionSet) -> None:
    weights, x = packed(quantized_experts(E, D, F), machine), activations(TOKENS)
    all_rows = computed(x, ROUTINGS["even"], weights, "bfloat16")
    for token in (0, 17, TOKENS - 1):
        alone = computed(
            x[token : token + 1], ROUTINGS["even"][token : token + 1], weights, "bfloat16"
        )
        np.testing.assert_array_equal(alone[0], all_rows[token])
    crowd = np.array(ROUTINGS["even"])
    crowd[1:] = [3, 1]
    np.testing.assert_array_equal(computed(x, crowd, weights, "bfloat16")[0], all_rows[0])


@every_machine
def test_padding_does_not_reach_other_rows(machine: InstructionSet) -> None:
    weights, x, chosen = (
        packed(quantized_experts(E, D, F), machine),
        activations(TOKENS),
        ROUTINGS["padded"],
    )
    clean = computed(x, chosen, weights, "bfloat16")
    x[::3] = np.nan
    np.testing.assert_array_equal(computed(x, chosen, weights, "bfloat16"), clean)
    assert not clean[::3].any()  # rows of padding are zero


@every_machine
def test_experts_called_from_several_threads_at_once(machine: InstructionSet) -> None:
    weights, x, chosen = (
        packed(quantized_experts(E, D, F), machine),
        activations(TOKENS),
        ROUTINGS["even"],
    )
    expected = computed(x, chosen, weights, "bfloat16")
    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(lambda _: computed(x, chosen, weights, "bfloat16"), range(200)):
            np.testing.assert_array_equal(rows, expected)


@pytest.mark.slow
def test_program_from_the_compilation_cache_runs_in_another_process(tmp_path: Path) -> None:
    program = (
        "import sys, jax, jax.numpy as jnp, numpy as np; sys.path.insert(0, '.')\n"
        "from tests.actors.kernels.cpu.test_experts import *\n"
        "x, chosen = activations(TOKENS), ROUTINGS['even']\n"
        "print(float(computed(x, chosen, packed(quantized_experts(E, D, F), MACHINES[0]), "
        "'bfloat16').sum()))"
    )
    environment = {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    environment |= {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-c", program]
    said = []
    for _ in range(2):
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1]
    assert any(tmp_path.iterdir())
