"""`shard_activations` through the engine: same completions, other collectives, D / m columns."""

import re
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding

from actors.engine.config import EngineConfig
from actors.engine.steps import ROWS, EngineContext, step_functions
from actors.kernels.quantized import QuantizedWeight
from actors.model.config import DEMO, ModelConfig, TensorSpec, parameter_shapes
from actors.model.language_model import Step, cache_specs, init_cache
from actors.model.sharding import make_mesh, parameter_specs, sharded_groups
from actors.protocol.errors import ModelError
from actors.protocol.messages import Completion
from tests.actors.engine.engines import generate, golden, make_engine, run, score

MESHES = [(1, 1), (1, 8), (2, 4)]
ROWS_OF_A_STEP, CHUNK = 8, 16


@lru_cache
def completions(mesh: tuple[int, int], split: bool) -> list[Completion]:
    """Greedy and drawn completions, prompt log-probs and scores.

    Prompts in pieces of 16 tokens, decode side by side.
    """
    engine = make_engine(
        "gqa", mesh, prefill_tokens=32, prompt_logprobs=2, logprobs=2, shard_activations=split
    )
    prompts = [golden("gqa")[f"p{i}_tokens"].tolist() for i in range(4)]
    greedy = [generate(i, prompt, 16, ignore_eos=True) for i, prompt in enumerate(prompts)]
    drawn = [generate(9, prompts[3], 8, temperature=0.9, top_p=0.8, seed=77)]
    return run(engine, [*greedy, *drawn, score(10, prompts[2], [7], [9, 11, 3])])


@pytest.mark.slow  # compiles
@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_activation_sharding_keeps_completions(mesh: tuple[int, int]) -> None:
    for whole, split in zip(completions(mesh, False), completions(mesh, True), strict=True):
        assert split.token_ids == whole.token_ids
        assert split.prompt_top_token_ids == whole.prompt_top_token_ids
        for field in ("token_logprobs", "top_logprobs", "prompt_logprobs", "prompt_top_logprobs"):
            np.testing.assert_allclose(
                getattr(split, field) or [], getattr(whole, field) or [], rtol=0, atol=1e-4
            )
        for one, other in zip(split.scores, whole.scores, strict=True):
            assert one.is_greedy == other.is_greedy
            assert one.loglikelihood == pytest.approx(other.loglikelihood, abs=1e-4 * one.tokens)


@pytest.mark.slow  # compiles
@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_activation_sharding_matches_the_reference(mesh: tuple[int, int]) -> None:
    gold, compared = golden("gqa"), 0
    for i, completion in enumerate(completions(mesh, True)[:4]):
        gap = gold[f"p{i}_gen_gap"]
        sure = int(np.argmax(gap < 5e-3)) if (gap < 5e-3).any() else len(gap)
        assert completion.token_ids.tolist()[:sure] == gold[f"p{i}_gen_tokens"].tolist()[:sure]
        np.testing.assert_allclose(
            (completion.token_logprobs or [])[:sure], gold[f"p{i}_gen_logprobs"][:sure], atol=1e-3
        )
        np.testing.assert_allclose(
            completion.prompt_logprobs or [], gold[f"p{i}_next_logprobs"], atol=1e-3
        )
        compared += sure
    assert compared > 32


def abstract_parameters(config: ModelConfig, mesh: Mesh) -> Any:
    """Returns int8 parameters on the mesh that have shapes and no numbers."""
    specs, params = parameter_specs(config), {}

    def array(shape: tuple[int, ...], dtype: Any, spec: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    def one(tensor: TensorSpec, spec: Any) -> Any:
        if tensor.scale_groups is None:
            return array(tensor.shape, jnp.float32, spec)
        rows_split = spec.weight[-2] is not None
        groups = (
            sharded_groups(tensor.scale_groups, mesh.shape["model"])
            if rows_split
            else tensor.scale_groups
        )
        scales = (*tensor.shape[:-2], groups, tensor.shape[-1])
        return QuantizedWeight(
            array(tensor.shape, jnp.int8, spec.weight), array(scales, jnp.bfloat16, spec.scales)
        )

    for tensor in parameter_shapes(config):
        params.setdefault(tensor.module, {})[tensor.name] = one(
            tensor, specs[tensor.module][tensor.name]
        )
    return params


def lower_prefill(
    config: ModelConfig, mesh_shape: tuple[int, int], *, split: bool, rows: int = ROWS_OF_A_STEP
) -> Any:
    """Returns the lowered prefill of `rows` rows of 16 tokens; the weights are shapes only."""
    mesh = make_mesh(*mesh_shape)
    context = EngineContext(
        config, EngineConfig(max_len=256, shard_activations=split), jnp.bfloat16, mesh
    )
    params = abstract_parameters(config, mesh)
    functions = step_functions(context, parameter_specs(config))

    def placed(tree: Any, specs: Any) -> Any:
        return jax.tree.map(
            lambda leaf, spec: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec)
            ),
            tree,
            specs,
        )

    pages = jax.eval_shape(
        lambda: init_cache(config, pages=256, page_size=16, dtype=jnp.bfloat16, model_shards=1)
    )
    cache = placed(pages, cache_specs(config))
    shapes = ((rows, CHUNK), (rows,), (rows,), (rows, 16))
    step = Step(
        *(
            jax.ShapeDtypeStruct(shape, jnp.int32, sharding=NamedSharding(mesh, ROWS))
            for shape in shapes
        )
    )  # type: ignore[arg-type]
    return functions.prefill.lower(params, cache, step)


def collectives(text: str) -> Counter[str]:
    """Counts the collectives of a program before compilation, by kind and type of the result."""
    found = re.findall(
        r'"stablehlo\.(all_reduce|all_gather|reduce_scatter)"'
        r".*?[)>] : \([^)]*\) -> (tensor<[^>]*>)",
        text,
        re.DOTALL,
    )
    return Counter(f"{kind} {result}" for kind, result in found)


@pytest.mark.parametrize("layers", [1, 3])
def test_activation_sharding_replaces_all_reduces(layers: int) -> None:
    """Two all-reduces become two reduce-scatters and two all-gathers; norms add one number."""
    config = replace(DEMO, num_layers=layers)
    whole, columns, number = "tensor<8x16x128xbf16>", "tensor<8x16x16xbf16>", "xf32>"
    off = collectives(lower_prefill(config, (1, 8), split=False).as_text())
    assert off == {f"all_reduce {whole}": layers + 1, "all_reduce tensor<128x128xbf16>": layers}
    on = collectives(lower_prefill(config, (1, 8), split=True).as_text())
    assert on == {
        f"reduce_scatter {columns}": layers + 1,  # embedding and attention
        "reduce_scatter tensor<128x16xbf16>": layers,  # experts
        f"all_gather {whole}": 2 * layers,  # before both blocks
        # norms after attention and after the experts, last norm
        f"all_reduce tensor<8x16x1{number}": 2 * layers + 1,
    }


def test_activation_sharding_on_one_model_device_changes_nothing() -> None:
    off, on = (
        collectives(lower_prefill(DEMO, (2, 1), split=split).as_text()) for split in (False, True)
    )
    assert on == off
    assert on.total() == 2 * DEMO.num_layers + 1


def test_activation_sharding_rejects_indivisible_widths() -> None:
    narrow = replace(DEMO, emb_size=60)
    with pytest.raises(
        ModelError, match="mesh axis model = 8 does not divide the model's emb_size 60"
    ):
        EngineContext(
            narrow, EngineConfig(max_len=8, shard_activations=True), jnp.float32, make_mesh(1, 8)
        )
    EngineContext(narrow, EngineConfig(max_len=8), jnp.float32, make_mesh(1, 8))
    EngineContext(
        narrow, EngineConfig(max_len=8, shard_activations=True), jnp.float32, make_mesh(2, 4)
    )
