"""The step functions: contexts, shapes of results, and one decode call row by row."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from actors.engine.config import EngineConfig
from actors.engine.packing import pack
from actors.engine.planning.abstract import (
    abstract_cache,
    abstract_parameters,
    decode_input,
    prefill_input,
    score_input,
)
from actors.engine.sampling import SamplingArrays
from actors.engine.steps import DecodeInput, DecodeOutput, EngineContext, step_functions
from actors.kernels.choice import select_platform
from actors.kernels.quantized import QuantizedWeight
from actors.kernels.xla.layout import dequantize_params
from actors.model.config import ModelConfig
from actors.model.language_model import init_cache
from actors.model.sharding import make_mesh, parameter_specs
from actors.protocol.errors import ModelError
from actors.weights.pickle_reader import Int8Tensor
from actors.weights.random_weights import random_parameters
from tests import reference

CONFIG = ModelConfig(
    vocab_size=16,
    emb_size=16,
    widening_factor=2,
    key_size=4,
    num_q_heads=4,
    num_kv_heads=4,
    num_layers=1,
    attn_output_multiplier=0.5,
    embedding_multiplier_scale=4.0,
    output_multiplier_scale=1.0,
    sequence_len=32,
)
ENGINE = EngineConfig(
    16, chunk=4, page_size=4, slots=4, decode_steps=3, logprobs=2, prompt_logprobs=3
)


def context_of(mesh: tuple[int, int], **changes: Any) -> EngineContext:
    return EngineContext(CONFIG, replace(ENGINE, **changes), jnp.dtype("float32"), make_mesh(*mesh))


def test_context_reads_its_shards_from_the_mesh() -> None:
    context = context_of((2, 4))
    assert (context.data_shards, context.model_shards) == (2, 4)
    platform = select_platform("cpu")
    assert context.platform is platform
    assert context.kernels is platform.kernels
    assert context.cache_dtype == platform.cache_dtype(jnp.dtype("float32"))


def test_deterministic_context_keeps_the_kernels_of_its_platform() -> None:
    """On CPUs programs are never chosen by timing: there is no option to add."""
    context = context_of((1, 1), deterministic=True)
    platform = select_platform("cpu")
    assert context.kernels is platform.kernels
    options = context.platform.compiler_options(jnp.float32)
    assert options == platform.compiler_options(jnp.float32)


def test_context_compiles_the_processors_of_its_parameters() -> None:
    assert context_of((1, 1)).logits_chain.processors == ()
    chain = context_of((1, 1), sampling_parameters=("temperature", "bad_words")).logits_chain
    assert [type(processor).__name__ for processor in chain.processors] == ["BadWords"]


def test_context_of_a_width_that_does_not_divide_raises() -> None:
    narrow = replace(CONFIG, emb_size=12)
    engine = replace(ENGINE, shard_activations=True)
    message = "model = 8 does not divide the model's emb_size 12"
    with pytest.raises(ModelError, match=message):
        EngineContext(narrow, engine, jnp.dtype("float32"), make_mesh(1, 8))
    EngineContext(narrow, ENGINE, jnp.dtype("float32"), make_mesh(1, 8))


@pytest.mark.parametrize("shard_activations", [False, True])
def test_step_functions_keep_shapes_and_report_k_tokens(shard_activations: bool) -> None:
    """Traced, not compiled."""
    context = context_of((2, 4), shard_activations=shard_activations)
    functions = step_functions(context, parameter_specs(CONFIG))
    params = abstract_parameters(CONFIG, context.mesh)
    cache = abstract_cache(context, 5)
    rows = 2  # of each of two data shards

    step = prefill_input(context, rows, 4)
    hidden, new_cache = jax.eval_shape(functions.prefill, params, cache, step)
    assert hidden.shape == (4, 4, CONFIG.emb_size)
    assert jax.tree.map(lambda array: array.shape, new_cache) == jax.tree.map(
        lambda array: array.shape, cache
    )

    output, _ = jax.eval_shape(functions.decode, params, cache, decode_input(context, rows, 4))
    assert output.tokens.shape == output.logprobs.shape == (4, 3)
    assert output.top_ids.shape == output.top_logprobs.shape == (4, 3, 2)
    assert output.token_count.shape == (4,)
    assert output.steps.shape == (2,)

    scores = jax.eval_shape(functions.score, params, *score_input(context, rows, 5))
    assert scores.logprob.shape == (10,)
    assert scores.top_ids.shape == (10, 3)


# Row 0 is not in use. The first token of rows 2 and 3 is end-of-text: row 2 ignores it.
FIRST_TOKENS = [3, 5, 11, 11]
LEFT = [0, 2, 9, 9]


def greedy(row: int, config: ModelConfig) -> tuple[list[int], list[np.ndarray]]:
    """Returns three greedy tokens after a prompt of one token, and the log-probs of each step."""
    weights: dict[str, np.ndarray] = {}
    for path, tensor in random_parameters(config, 7):
        weights[path] = reference.dequantised(tensor)
    tokens = [FIRST_TOKENS[row]]
    steps = []
    for _ in range(ENGINE.decode_steps):
        logprobs = reference.log_probs(reference.logits(weights, config, tokens)[-1])
        steps.append(logprobs)
        tokens.append(int(logprobs.argmax()))
    return tokens[1:], steps


def decode(config: ModelConfig) -> DecodeOutput:
    """Runs one decode call from an empty cache."""
    loaded: dict[str, dict[str, Any]] = {}
    for path, tensor in random_parameters(config, 7):
        module, _, name = path.rpartition("/")
        weight: Any = jnp.asarray(tensor) if isinstance(tensor, np.ndarray) else None
        if isinstance(tensor, Int8Tensor):
            weight = QuantizedWeight(jnp.asarray(tensor.weight), jnp.asarray(tensor.scales))
        loaded.setdefault(module, {})[name] = weight
    params = dequantize_params(loaded, jnp.float32)

    context = replace(context_of((1, 1)), model=config)
    cache = init_cache(config, pages=8, page_size=4, dtype=context.cache_dtype, model_shards=1)
    rows = len(LEFT)
    zeros = np.zeros(rows, np.int32)
    sampling = SamplingArrays(
        temperature=np.zeros(rows, np.float32),
        top_p=np.ones(rows, np.float32),
        top_k=zeros,
        min_p=np.zeros(rows, np.float32),
        seed=np.zeros((rows, 2), np.uint32),
        position=zeros,
        eos_from=zeros,
    )
    call = DecodeInput(
        tokens=np.asarray(FIRST_TOKENS, np.int32),
        start=zeros,
        left=np.asarray(LEFT, np.int32),
        stops_at_eos=np.asarray([True, False, False, True]),
        pages=np.arange(rows, dtype=np.int32)[:, None],
        sampling=sampling,
        processors=(),
    )
    functions = step_functions(context, parameter_specs(config, dense=True))
    output, _ = functions.decode(params, cache, pack(call))
    return DecodeOutput(*map(np.asarray, output))


def test_decode_stops_each_row_and_reports_the_distribution() -> None:
    first_tokens, _ = greedy(3, CONFIG)
    config = replace(CONFIG, eos_token=first_tokens[0])
    output = decode(config)
    assert output.token_count.tolist() == [0, 2, 3, 1]
    assert output.steps.tolist() == [3]
    for row in (1, 2, 3):
        tokens, steps = greedy(row, config)
        for step in range(int(output.token_count[row])):
            assert output.tokens[row, step] == tokens[step]
            logprobs = steps[step]
            best = np.argsort(-logprobs, kind="stable")[:2]
            np.testing.assert_allclose(
                output.logprobs[row, step], logprobs[tokens[step]], atol=1e-4
            )
            np.testing.assert_array_equal(output.top_ids[row, step], best)
            np.testing.assert_allclose(output.top_logprobs[row, step], logprobs[best], atol=1e-4)
