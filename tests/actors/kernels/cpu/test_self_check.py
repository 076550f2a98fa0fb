"""The self-check of machine code: an instruction set that computes something else is not used."""

import pytest

from actors.kernels.cpu.code import instruction_sets
from actors.kernels.cpu.layout import PackedExperts, pack_experts
from actors.kernels.cpu.self_check import agrees_with_xla
from actors.kernels.cpu.tiles import InstructionSet
from actors.kernels.quantized import QuantizedWeight

every_machine = pytest.mark.parametrize(
    "machine", instruction_sets(), ids=lambda machine: machine.name
)


def pack_negated(weight: QuantizedWeight, machine: InstructionSet) -> PackedExperts:
    return pack_experts(weight._replace(weight=-weight.weight), machine)


@every_machine
def test_self_check_passes_on_this_cpu(machine: InstructionSet) -> None:
    assert agrees_with_xla(machine)


@every_machine
def test_self_check_fails_for_wrong_results(machine: InstructionSet) -> None:
    assert not agrees_with_xla(machine, pack=pack_negated)
