"""A model over a GPU's kernels, interpreted: prefill, pieces and decode against goldens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from actors.kernels.gpu.platform import GPU, INTERPRETED
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


def test_deterministic_programs_are_not_chosen_by_timing() -> None:
    options = GPU.deterministic().compiler_options(jnp.bfloat16)

    assert options == {
        "xla_gpu_autotune_level": "0",
        "xla_gpu_exclude_nondeterministic_ops": "True",
    }
    assert GPU.compiler_options(jnp.bfloat16) == {}
    # the options of all platforms are those of one compiler: it refuses unknown names and values
    jax.jit(lambda x: x + 1).lower(1.0).compile(compiler_options=options)


@pytest.mark.slow  # compiles
def test_prefill_pieces_and_decode_on_gpu_kernels_match_goldens() -> None:
    case, devices = "mha", sharding.make_mesh(1, 8)
    config = config_of(case)
    params = INTERPRETED.pack_for_device(
        checkpoint.load(CONFORMANCE / case / "ckpt-0", config, devices), jnp.float32
    )
    model = TinyModel(config, params, devices, jnp.dtype("float32"), kernels=INTERPRETED.kernels)
    rows = prompts(case)
    whole = model.prefill(rows)
    cut = [len(row) // 2 for row in rows]
    width = max(map(len, rows))  # of all prefill calls, so that one program is compiled
    first_pieces = [row[:at] for row, at in zip(rows, cut, strict=True)]
    _, cache = model.step(model.cache(), first_pieces, width=width)
    last_pieces = [row[at:-1] for row, at in zip(rows, cut, strict=True)]
    pieces, cache = model.step(cache, last_pieces, start=cut, width=width)
    last, _ = model.step(cache, [row[-1:] for row in rows], start=[len(row) - 1 for row in rows])
    for b, row in enumerate(rows):
        expected = golden(case)[f"p{b}_logits"]
        assert_close(whole.logits[b, : len(row)], expected, atol=1e-3)
        assert_close(pieces.logits[b, : len(row) - 1 - cut[b]], expected[cut[b] : -1], atol=1e-3)
        assert_close(last.logits[b, 0], expected[-1], atol=1e-3)
        np.testing.assert_array_equal(
            whole.experts[b, :, : len(row)], golden(case)[f"p{b}_experts"]
        )
