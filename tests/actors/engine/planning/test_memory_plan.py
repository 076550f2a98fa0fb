"""memory_plan.py: exact bytes of Grok-1, program shapes, and the memory of compiled programs."""

import json
from dataclasses import asdict, replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from actors.engine.config import EngineConfig
from actors.engine.planning.abstract import (
    abstract_cache,
    abstract_parameters,
    bytes_per_device,
)
from actors.engine.planning.memory_plan import _cache_limit, main, plan, weights_by_kind
from actors.engine.planning.sizes import cache_bytes_per_token
from actors.engine.steps import EngineContext
from actors.model import sharding
from actors.model.config import DEMO, GROK_1, ModelConfig, parameter_shapes
from actors.protocol.errors import ModelError

ENGINE = EngineConfig(max_len=8192)


def request(model: ModelConfig, engine: EngineConfig = ENGINE, **changes: Any) -> dict[str, Any]:
    asked = {
        "model": asdict(model),
        "engine": asdict(engine),
        "dtype": "bfloat16",
        "mesh": [1, 8],
        "targets": ["h100", "h200"],
    }
    return asked | changes


def test_parameters_and_tensors_of_grok_1_are_exact() -> None:
    shapes = parameter_shapes(GROK_1)
    assert (shapes.parameters, len(shapes)) == (315_684_820_992, 770)
    arrays = jax.tree.leaves(abstract_parameters(GROK_1, sharding.make_mesh(1, 8)))
    counted = [array for array in arrays if array.dtype != jnp.bfloat16]  # scales are no parameters
    assert len(counted) == 770
    assert sum(array.size for array in counted) == 315_684_820_992


def test_weights_of_grok_1_on_one_of_eight_devices_are_exact() -> None:
    d, f, v, layers = 6144, 32768, 131072, 64
    assert weights_by_kind(abstract_parameters(GROK_1, sharding.make_mesh(1, 8))) == {
        "weights, int8": layers * (3 * 8 * d * f + 2 * d * d + 2 * d * 1024) // 8,
        # query, key and value, gate and value projections: one group; the two output projections:
        # eight
        "scales, bfloat16": layers * 2 * ((d + 2 * 1024) + 8 * 2 * f + 8 * d + 8 * 8 * d) // 8,
        "embedding, norms, router": 4 * (v * d // 8 + (4 * layers + 1) * d + layers * d * 8),
    }


def test_cache_of_grok_1_on_one_of_eight_devices_is_exact() -> None:
    context = EngineContext(GROK_1, ENGINE, jnp.dtype("bfloat16"), sharding.make_mesh(1, 8))
    taken = bytes_per_device(abstract_cache(context, pages_per_data_shard=100))
    assert taken == 1600 * (64 * 2 * 128 * 2 + 4) == 1600 * cache_bytes_per_token(GROK_1, 8, 2)


@pytest.mark.parametrize(
    ("sizes", "tokens", "limit"),
    [
        ({}, 64 * 8192, "slots"),
        ({"slots": 512}, 500_000, "memory"),
        ({"cache_tokens": 9000}, 9000, "size"),
    ],
)
def test_plan_names_what_limits_the_cache(sizes: dict[str, int], tokens: int, limit: str) -> None:
    engine = replace(ENGINE, **sizes)
    context = EngineContext(GROK_1, engine, jnp.dtype("bfloat16"), sharding.make_mesh(1, 8))
    assert _cache_limit(context, tokens) == limit


def hidden_wheels() -> str:
    return "the test hides the wheels"


@pytest.fixture(scope="module")
def fallback() -> dict[str, Any]:
    """Returns the plan of two layers of Grok-1, compiled for virtual CPU devices."""
    return plan(request(replace(GROK_1, num_layers=2)), hidden_wheels)


@pytest.mark.slow
def test_plan_without_the_wheels_reports_the_fallback(fallback: dict[str, Any]) -> None:
    assert fallback["fallback"] == "the test hides the wheels"
    assert [target["compiled_for"] for target in fallback["targets"]] == ["cpu", "cpu"]
    assert [target["title"] for target in fallback["targets"]] == ["H100", "H200"]
    assert json.loads(json.dumps(fallback)) == fallback


@pytest.mark.slow
def test_argument_bytes_match_the_compiler(fallback: dict[str, Any]) -> None:
    for target in fallback["targets"]:
        for name in ("prefill", "decode"):
            program = target["programs"][name]
            counted = (
                sum(target["weights_bytes"].values())
                + target["cache_bytes"]
                + program["input_bytes"]
            )
            assert program["argument_bytes"] == counted


@pytest.mark.slow
def test_layer_costs_two_all_reduces(fallback: dict[str, Any]) -> None:
    programs = fallback["targets"][0]["programs"]
    assert programs["prefill"]["collectives"] == {"all-reduce": 1 + 2 * 2}  # one for the embedding
    # all-to-all and all-gather only where temperature is above 0
    assert set(programs["decode"]["collectives"]) == {"all-reduce", "all-gather", "all-to-all"}
    assert programs["score"]["collectives"] == {"all-reduce": 3}


@pytest.mark.slow
def test_plan_compiles_the_largest_shapes_and_fits_tightly(
    fallback: dict[str, Any],
) -> None:
    for target in fallback["targets"]:
        programs = target["programs"]
        prefill_rows = ENGINE.prefill_tokens // ENGINE.chunk
        largest = [(prefill_rows, 512), (64, 512), (prefill_rows, 256)]
        assert [(programs[name]["rows"], programs[name]["width"]) for name in programs] == largest
        beside = max(
            each["input_bytes"] + each["temporary_bytes"] + each["output_bytes"]
            for each in programs.values()
        )
        fixed = sum(target["weights_bytes"].values()) + beside
        assert target["total_bytes"] == fixed + target["cache_bytes"]
        per_token = 2 * (2 * 128 * 2) + 4
        fits = target["cache_tokens_fit"]
        assert fixed + fits * per_token <= target["capacity_bytes"] < fixed + (fits + 1) * per_token
        assert target["sequences_fit"] == fits // 8192
    assert fallback["targets"][0]["cache_tokens_fit"] < fallback["targets"][1]["cache_tokens_fit"]


@pytest.mark.slow
def test_plan_counts_the_collectives_of_activation_sharding() -> None:
    engine = EngineConfig(max_len=64, shard_activations=True)
    sharded = plan(request(DEMO, engine, targets=["h100"]), hidden_wheels)
    programs = sharded["targets"][0]["programs"]
    assert {"reduce-scatter", "all-gather", "all-reduce"} <= set(programs["prefill"]["collectives"])


@pytest.mark.slow
def test_plan_of_embeddings_has_no_logits_and_pools_without_collectives() -> None:
    engine = replace(ENGINE, max_len=64, prefill_tokens=512, pooling="mean")
    answer = plan(request(DEMO, engine, mesh=[1, 1], targets=["h100"]), hidden_wheels)
    programs = answer["targets"][0]["programs"]
    assert programs.keys() == {"prefill", "pool"}
    assert programs["pool"]["collectives"] == {}
    assert programs["pool"]["output_bytes"] == 512 // engine.chunk * DEMO.emb_size * 4


def test_plan_rejects_sizes_that_do_not_fit_together(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ModelError, match="unknown target b300; expected some of a100-80, h100, h200, b200"
    ):
        plan(request(DEMO, targets=["b300"]))
    assert main(["--json", json.dumps(request(DEMO, mesh=[1, 5]))]) == 2
    said = capsys.readouterr()
    assert "mesh axis model = 5 does not divide" in said.err
    assert said.out == ""
