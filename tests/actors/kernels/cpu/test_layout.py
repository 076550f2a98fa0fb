"""Experts packed in panels of columns for the CPU's kernel."""

import numpy as np
import pytest

from actors.kernels.cpu.layout import pack_experts
from actors.kernels.cpu.tiles import AVX2, AVX2_PAIRS, InstructionSet
from actors.protocol.errors import ModelError
from tests.actors.kernels.test_quantized import weight


@pytest.mark.parametrize("machine", [AVX2, AVX2_PAIRS], ids=lambda machine: machine.name)
def test_pack_experts_stores_panels_row_after_row(machine: InstructionSet) -> None:
    loaded = weight((2, 12, 20), 3)  # 20 columns: one panel of 16 and a quarter
    packed = pack_experts(loaded, machine)
    assert packed.shape == (2, 12, 20)
    values = np.asarray(packed.weight).reshape(2, 2, 12, machine.panel)
    scales = np.asarray(packed.scales)
    np.testing.assert_array_equal(values[:, 0], loaded.weight[:, :, :16])
    np.testing.assert_array_equal(values[:, 1, :, :4], loaded.weight[:, :, 16:])
    np.testing.assert_array_equal(scales[:, 1, :, :4], loaded.scales[:, :, 16:].astype("float32"))
    assert not values[:, 1, :, 4:].any()
    assert not scales[:, 1, :, 4:].any()


def test_packed_experts_cannot_be_read_by_plain_xla() -> None:
    packed = pack_experts(weight((2, 12, 20), 1), AVX2)
    with pytest.raises(ModelError, match="the weights are packed for avx2"):
        packed.expert(0)
