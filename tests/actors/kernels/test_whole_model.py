"""A whole model over a GPU's kernels, interpreted: prefill, a piece more and decode, against the reference's own numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from actors.kernels.choice import CPU, GPU, INTERPRETED, XLA, for_platform
from actors.kernels.cpu.code import instruction_sets
from actors.model import sharding
from actors.weights import checkpoint
from tests.actors.model.models import (
    CONFORMANCE,
    TinyModel,
    assert_close,
    config_of,
    golden,
    prompts,
)


@pytest.mark.slow  # compiles
def test_prefill_pieces_and_decode_match_the_reference() -> None:
    case, devices = "mha", sharding.make_mesh(1, 8)
    config = config_of(case)
    params = INTERPRETED.arrange(
        checkpoint.load(CONFORMANCE / case / "ckpt-0", config, devices), jnp.float32
    )
    model = TinyModel(config, params, devices, jnp.dtype("float32"), kernels=INTERPRETED)
    rows = prompts(case)
    whole = model.prefill(rows)
    cut = [len(row) // 2 for row in rows]
    _, cache = model.step(model.cache(), [row[:at] for row, at in zip(rows, cut, strict=True)])
    pieces, cache = model.step(
        cache, [row[at:-1] for row, at in zip(rows, cut, strict=True)], start=cut
    )
    last, _ = model.step(cache, [row[-1:] for row in rows], start=[len(row) - 1 for row in rows])
    for b, row in enumerate(rows):
        expected = golden(case)[f"p{b}_logits"]
        assert_close(whole.logits[b, : len(row)], expected, atol=1e-3)
        assert_close(pieces.logits[b, : len(row) - 1 - cut[b]], expected[cut[b] : -1], atol=1e-3)
        assert_close(last.logits[b, 0], expected[-1], atol=1e-3)
        np.testing.assert_array_equal(
            whole.experts[b, :, : len(row)], golden(case)[f"p{b}_experts"]
        )


def test_the_platform_chooses_the_kernels() -> None:
    assert for_platform("cpu") is (CPU if instruction_sets() else XLA)
    assert for_platform("tpu") is XLA
    assert for_platform("gpu") is for_platform("cuda") is GPU
