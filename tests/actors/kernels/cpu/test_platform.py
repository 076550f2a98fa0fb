"""The platform of CPUs: which instruction set packs the weights, and a model over its kernels."""

import jax.numpy as jnp
import numpy as np
import pytest

from actors.kernels.cpu.code import instruction_sets
from actors.kernels.cpu.layout import PackedExperts
from actors.kernels.cpu.platform import CPU, pack_for_device
from actors.kernels.cpu.tiles import AVX2, AVX2_PAIRS, InstructionSet
from actors.kernels.quantized import QuantizedWeight
from actors.kernels.xla.layout import DenseExperts
from actors.model import sharding
from actors.weights import checkpoint
from tests.actors.kernels.test_quantized import weight
from tests.actors.model.models import (
    CONFORMANCE,
    TinyModel,
    assert_close,
    config_of,
    golden,
    prompts,
)


@pytest.fixture
def needs_kernels() -> None:
    if not instruction_sets():
        pytest.skip("this CPU has none of the instruction sets that the kernels are written for")


@pytest.mark.usefixtures("needs_kernels")
@pytest.mark.slow  # compiles a model
@pytest.mark.parametrize(
    ("case", "mesh"), [("mha", (1, 8)), ("gqa", (1, 1)), ("gqa", (2, 2)), ("grokconst", (1, 8))]
)
def test_model_on_cpu_kernels_matches_goldens(case: str, mesh: tuple[int, int]) -> None:
    devices, config = sharding.make_mesh(*mesh), config_of(case)
    params = CPU.pack_for_device(
        checkpoint.load(CONFORMANCE / case / "ckpt-0", config, devices), jnp.float32
    )
    assert isinstance(params["transformer/decoder_layer_0/moe/linear"]["w"], PackedExperts)
    model = TinyModel(config, params, devices, jnp.dtype("float32"), kernels=CPU.kernels)
    rows = prompts(case)
    whole = model.prefill(rows)
    for b, row in enumerate(rows):
        assert_close(whole.logits[b, : len(row)], golden(case)[f"p{b}_logits"], atol=1e-3)
        np.testing.assert_array_equal(
            whole.experts[b, :, : len(row)], golden(case)[f"p{b}_experts"]
        )


@pytest.mark.parametrize(
    ("dtype", "rows", "groups", "expected"),
    [
        ("bfloat16", 16, 4, AVX2_PAIRS),
        ("float32", 16, 4, AVX2),  # products of pairs would round activations
        ("bfloat16", 12, 4, AVX2),  # a pair would reach into the next group of scales
    ],
)
def test_pack_for_device_selects_pairs_where_they_fit(
    dtype: str, rows: int, groups: int, expected: InstructionSet
) -> None:
    params = {
        "moe/linear": {"w": weight((2, 16, rows), 1)},
        "moe/linear_1": {"w": weight((2, rows, 16), groups)},
    }
    packed = pack_for_device(params, jnp.dtype(dtype), (AVX2_PAIRS, AVX2), is_usable=lambda _: True)
    for entries in packed.values():
        assert isinstance(entries["w"], PackedExperts)
        assert entries["w"].instructions == expected.name


@pytest.mark.parametrize(
    ("broken", "expected"), [((), AVX2_PAIRS), ((AVX2_PAIRS,), AVX2), ((AVX2_PAIRS, AVX2), None)]
)
def test_pack_for_device_checks_up_to_the_first_usable_instruction_set(
    broken: tuple[InstructionSet, ...], expected: InstructionSet | None
) -> None:
    params = {"moe/linear": {"w": weight((2, 16, 16), 1)}}
    machines = (AVX2_PAIRS, AVX2)
    checked = []

    def is_usable(machine: InstructionSet) -> bool:
        checked.append(machine)
        return machine not in broken

    packed = pack_for_device(params, jnp.bfloat16, machines, is_usable)["moe/linear"]["w"]

    assert checked == list(machines[: len(broken) + 1])
    if expected is None:
        assert isinstance(packed, DenseExperts)
    else:
        assert isinstance(packed, PackedExperts)
        assert packed.instructions == expected.name


def test_pack_for_device_without_instruction_sets_is_dense() -> None:
    experts, matrix = weight((2, 16, 8), 1), weight((16, 8), 1)
    table = jnp.ones((4, 16), jnp.float32)
    params = {"moe": {"w": experts}, "query": {"w": matrix}, "embed": {"embeddings": table}}
    packed = pack_for_device(params, jnp.bfloat16, ())
    assert isinstance(packed["moe"]["w"], DenseExperts)
    assert packed["query"]["w"].dtype == packed["embed"]["embeddings"].dtype == jnp.bfloat16
    for loaded in (experts, matrix):
        assert isinstance(loaded, QuantizedWeight)
        assert loaded.weight.is_deleted()  # a device never holds more than one weight twice
        assert loaded.scales.is_deleted()
