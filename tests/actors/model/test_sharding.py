"""Which device holds what."""

import math
from dataclasses import replace

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from actors.kernels.quantized import QuantizedWeight
from actors.kernels.xla.layout import DenseExperts
from actors.model.config import DEMO, GROK_1, parameter_shapes
from actors.model.sharding import (
    check_divisible,
    make_mesh,
    parameter_specs,
    parse_mesh,
    sharded_groups,
)
from actors.protocol.errors import ModelError


def test_parse_mesh_returns_data_and_model() -> None:
    assert parse_mesh("2x4") == (2, 4)
    assert make_mesh(2, 4).shape == {"data": 2, "model": 4}
    assert make_mesh(1, 1).devices.tolist() == [[jax.devices()[0]]]


@pytest.mark.parametrize("text", ["", "8", "1*8", "0x8", "1x", "1x8x1", "-1x8", " 1x8"])
def test_parse_mesh_of_invalid_text_raises(text: str) -> None:
    with pytest.raises(ModelError, match="expected DATAxMODEL with two positive numbers"):
        parse_mesh(text)


def test_make_mesh_of_too_many_devices_raises() -> None:
    with pytest.raises(ModelError, match=r"mesh 2x8 needs 16 devices, JAX sees 8 \(cpu\)"):
        make_mesh(2, 8)


def test_mesh_that_does_not_divide_the_model_raises() -> None:
    with pytest.raises(
        ModelError,
        match=(
            r"model = 7 does not divide the model's num_kv_heads 8 and ffn_size 176 and "
            r"vocab_size 768"
        ),
    ):
        check_divisible(DEMO, 7)
    with pytest.raises(ModelError, match=r"num_kv_heads 8; it may be one of 1, 2, 4, 8"):
        check_divisible(GROK_1, 16)
    check_divisible(replace(GROK_1, num_kv_heads=48), 16)


def test_parameter_specs_by_name() -> None:
    specs = parameter_specs(GROK_1)
    rows, columns = PartitionSpec("model", None), PartitionSpec(None, "model")
    layer = "transformer/decoder_layer_63"
    assert specs["language_model/in_out_embed"]["embeddings"] == rows
    assert specs[f"{layer}/multi_head_attention/query"]["w"] == QuantizedWeight(columns, columns)  # type: ignore[arg-type]
    assert specs[f"{layer}/multi_head_attention/linear"]["w"] == QuantizedWeight(rows, rows)  # type: ignore[arg-type]
    stacked = PartitionSpec(None, "model", None)
    assert specs[f"{layer}/moe/linear_1"]["w"] == QuantizedWeight(stacked, stacked)  # type: ignore[arg-type]
    assert specs[f"{layer}/router"]["w"] == PartitionSpec(None, None)
    dense = parameter_specs(GROK_1, dense=True)
    # transposed
    assert dense[f"{layer}/moe/linear_v"]["w"] == DenseExperts((rows,) * 8)  # type: ignore[arg-type]
    assert dense[f"{layer}/multi_head_attention/key"]["w"] == columns


def test_parameter_specs_have_the_rank_of_their_tensors() -> None:
    specs = parameter_specs(DEMO)
    assert {(m, n) for m in specs for n in specs[m]} == {
        (t.module, t.name) for t in parameter_shapes(DEMO)
    }
    for tensor in parameter_shapes(DEMO):
        spec = specs[tensor.module][tensor.name]
        assert len(spec.weight if isinstance(spec, QuantizedWeight) else spec) == len(tensor.shape)


@given(shards=st.integers(1, 64), groups=st.integers(1, 16), factor=st.integers(1, 8))
def test_sharded_groups_split_evenly_and_nest(shards: int, groups: int, factor: int) -> None:
    rows = math.lcm(shards, groups) * factor
    finer = sharded_groups(groups, shards)
    assert finer % groups == finer % shards == rows % finer == 0
    assert finer == groups or groups % shards
