"""jobs/benchmark.py on a shard of a tiny model: the way of grok-1-shard, on the CPU."""

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import pytest

from actors.kernels.gpu.layout import TransposedExperts
from actors.kernels.gpu.platform import INTERPRETED
from actors.model.config import DEMO, GROK_1, parameter_shapes
from actors.model.sharding import make_mesh
from jobs import benchmark
from jobs.benchmarks import models as benchmark_model
from jobs.benchmarks.models import GROK_1_SHARD, random_params

TINY_SHARD = replace(DEMO, num_q_heads=2, num_kv_heads=1, vocab_size=64, num_layers=1)


def test_shard_is_an_eighth_of_grok_1() -> None:
    shard, whole = parameter_shapes(GROK_1_SHARD), parameter_shapes(GROK_1)
    split = [
        tensor.path for tensor in whole if {"vocab", "heads", "kv_heads", "ffn"} & set(tensor.axes)
    ]
    for one, all_eight in zip(shard, whole, strict=True):
        size = one.shape and len(one.shape) and jnp.prod(jnp.array(one.shape, jnp.float32))
        parts = jnp.prod(jnp.array(all_eight.shape, jnp.float32)) / size
        assert parts == (8 if one.path in split else 1), one.path


@pytest.mark.slow
def test_shard_is_measured_with_int8_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(benchmark_model.MODELS, "grok-1-shard", TINY_SHARD)
    out = tmp_path / "figures.json"
    sizes = [
        "--slots",
        "2",
        "--prefill-rows",
        "1",
        "--prefill-length",
        "16",
        "--context",
        "4",
        "--new-tokens",
        "2",
    ]
    assert (
        benchmark.main(["--model", "grok-1-shard", "--weights", "int8", *sizes, "--json", str(out)])
        == 0
    )
    figures = json.loads(out.read_text())
    assert figures["prefill"]["tokens_per_s"] > 0
    assert [row["slots"] for row in figures["decode"]] == [2]
    assert 0 < figures["decode"][0]["mbu"] < 1


@pytest.mark.slow
def test_random_weights_have_the_layout_of_the_gpu_kernels() -> None:
    mesh = make_mesh(1, 1)
    params = random_params(TINY_SHARD, mesh, jnp.bfloat16, dense=False, platform=INTERPRETED)
    experts = params["transformer/decoder_layer_0/moe/linear_1"]["w"]
    assert isinstance(experts, TransposedExperts)
    assert experts.weight.shape == (8, TINY_SHARD.emb_size, TINY_SHARD.ffn_size)
    assert params["language_model/in_out_embed"]["embeddings"].dtype == jnp.bfloat16
