"""The four functions that an engine runs on its mesh; they compile for any shape of arguments.

`prefill` puts new tokens of several sequences into their pages, `score` reads log-probs of targets
at chosen positions of a prefill's output, `pool` pools its hidden states for embeddings, `decode`
samples several tokens for every sequence of a call on the device. Pure functions of arrays:
programs.py holds the weights and the cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from actors.engine.config import EngineConfig
from actors.engine.logits.chain import LogitsChain, chain_for
from actors.engine.logits.processor import DecodeView
from actors.engine.packing import PackedRows
from actors.engine.pooling import POOLS
from actors.engine.sampling import SamplingArrays, mask_eos, sample_tokens
from actors.engine.vocabulary import (
    Likelihood,
    first_id,
    join_rows,
    likelihood,
    most_likely,
    own_rows,
    split_rows,
)
from actors.kernels.choice import platform_of
from actors.kernels.interface import Kernels, Platform
from actors.model.config import ModelConfig
from actors.model.language_model import (
    Cache,
    Step,
    cache_specs,
    check_activation_split,
    forward,
    project,
)

ROWS = PartitionSpec("data")

# As the first input of a row: the token that the last call left in the cache, behind the tokens
# whose keys are there.
IN_CACHE = -1


class DecodeInput(NamedTuple):
    """State of the sequences of one decode call; rows that are not in use have `left` 0."""

    tokens: Int[Array, " B"]  # first input: the last token of the sequence, or `IN_CACHE`
    start: Int[Array, " B"]  # tokens in the cache
    left: Int[Array, " B"]  # tokens that may still be generated
    stops_at_eos: Bool[Array, " B"]
    pages: Int[Array, "B J"]
    sampling: SamplingArrays
    processors: tuple[Any, ...]  # arrays of the logits processors, one entry each


class DecodeOutput(NamedTuple):
    """Tokens of a decode call; row b is valid for its first `token_count[b]` steps."""

    tokens: Int[Array, "B S"]
    logprobs: Float[Array, "B S"]
    top_ids: Int[Array, "B S K"]
    top_logprobs: Float[Array, "B S K"]
    token_count: Int[Array, " B"]
    steps: Int[Array, " data_shards"]  # run on the device, the same on every data shard


# from step to step of a decode; last: the states of the logits processors
Carry = tuple[Cache, DecodeInput, DecodeOutput, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What every program is compiled against.

    Raises:
        ModelError: activations are split over a model axis that does not divide the model's width.
    """

    model: ModelConfig
    engine: EngineConfig
    dtype: Any
    mesh: Mesh

    def __post_init__(self) -> None:
        if self.engine.shard_activations:
            check_activation_split(self.model, self.model_shards)

    @property
    def data_shards(self) -> int:
        """Positions along the data axis."""
        return int(self.mesh.shape["data"])

    @property
    def model_shards(self) -> int:
        """Positions along the model axis."""
        return int(self.mesh.shape["model"])

    @property
    def cache_dtype(self) -> Any:
        """The type in which pages are stored."""
        return self.platform.cache_dtype(self.dtype)

    @property
    def logits_chain(self) -> LogitsChain:
        """The logits processors that decode is compiled with."""
        return chain_for(self.engine.sampling_parameters)

    @property
    def kernels(self) -> Kernels:
        """What the layers run on the mesh's devices."""
        return self.platform.kernels

    @property
    def platform(self) -> Platform:
        """Kernels and layouts of the mesh's devices."""
        platform = platform_of(self.mesh.devices.flat[0])
        if self.engine.deterministic:
            return platform.deterministic()
        return platform


def _forward(
    context: EngineContext, params: Any, cache: Cache, step: Step
) -> tuple[Float[Array, "B T W"], Cache]:
    return forward(
        params,
        step,
        cache,
        config=context.model,
        dtype=context.dtype,
        model_shards=context.model_shards,
        kernels=context.kernels,
        shard_activations=context.engine.shard_activations,
    )


def _project(
    context: EngineContext, params: Any, hidden_NW: Float[Array, "N W"]
) -> Float[Array, "N U"]:
    return project(
        params,
        hidden_NW,
        config=context.model,
        dtype=context.dtype,
        model_shards=context.model_shards,
        shard_activations=context.engine.shard_activations,
    )


def _score(
    context: EngineContext,
    k: int,
    params: Any,
    hidden_BTW: Float[Array, "B T W"],
    position_N: Int[Array, " N"],
    target_N: Int[Array, " N"],
) -> Likelihood:
    flat_MW = hidden_BTW.reshape(-1, hidden_BTW.shape[-1])
    logits_NU = _project(context, params, flat_MW[position_N])
    return likelihood(logits_NU, target_N, k, with_tail=context.engine.tail_logprobs)


def _pool(
    context: EngineContext,
    _: Any,
    hidden_BTW: Float[Array, "B T W"],
    count_B: Int[Array, " B"],
) -> Float[Array, "B W"]:
    return POOLS[context.engine.pooling or "last"].rows(hidden_BTW, count_B)


def _view(cache: Cache, state: DecodeInput) -> DecodeView:
    """Returns what logits processors see of the rows before a step."""
    return DecodeView(
        tokens=state.tokens,
        start=state.start,
        position=state.sampling.position,
        pages=state.pages,
        cached_tokens=cache.tokens,
    )


def _sample(
    context: EngineContext, logits_BU: Float[Array, "B U"], sampling: SamplingArrays
) -> Int[Array, " B"]:
    """Returns the next token: most likely, or sampled where temperature is above 0."""
    allowed_BU = mask_eos(logits_BU, sampling, context.model.eos_token, first_id(logits_BU))

    def draw(logits_BU: Float[Array, "B U"]) -> Int[Array, " B"]:
        own_sampling = SamplingArrays(*map(own_rows, sampling))
        own_tokens_R = sample_tokens(split_rows(logits_BU), own_sampling)
        return join_rows(own_tokens_R, logits_BU.shape[0])

    # The predicate is the same on all devices of the model axis, so all of them take the branch
    # with the collectives.
    is_drawn = jnp.any(sampling.temperature > 0.0)
    return jax.lax.cond(is_drawn, draw, most_likely, allowed_BU)


def _place_of(
    call: DecodeInput, position_B: Int[Array, " B"], cache: Cache
) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
    """Returns the page and the row in it of a position of each sequence."""
    page_size = cache.tokens.shape[1]
    number_B1 = (position_B // page_size)[:, None]
    page_B1 = jnp.take_along_axis(call.pages, number_B1, axis=1, mode="clip")
    return page_B1[:, 0], position_B % page_size


def _with_first_inputs(call: DecodeInput, cache: Cache, eos_token: int) -> DecodeInput:
    """Returns a call with the first inputs that are in the cache.

    A sequence that ended in the last call, unknown to the host, generates nothing.
    """
    in_cache_B = call.tokens == IN_CACHE
    left_token_B = cache.tokens[_place_of(call, call.start, cache)]
    token_B = jnp.where(in_cache_B, left_token_B, call.tokens)
    has_ended_B = in_cache_B & call.stops_at_eos & (token_B == eos_token)
    return call._replace(tokens=token_B, left=jnp.where(has_ended_B, 0, call.left))


def _with_last_tokens(
    cache: Cache, call: DecodeInput, token_B: Int[Array, " B"], max_steps: int
) -> Cache:
    """Returns the cache with the last token of each sequence that the next call may continue.

    It lies where a sequence that has not ended continues, so that the host needs no result of the
    call to plan the next one.
    """
    page_B, row_B = _place_of(call, call.start + max_steps, cache)
    missing_page = cache.tokens.shape[0]
    page_B = jnp.where(call.left > max_steps, page_B, missing_page)
    return cache._replace(tokens=cache.tokens.at[page_B, row_B].set(token_B, mode="drop"))


def _decode(
    context: EngineContext, k: int, params: Any, cache: Cache, call: PackedRows[DecodeInput]
) -> tuple[DecodeOutput, Cache]:
    state = _with_first_inputs(call.unpack(), cache, context.model.eos_token)
    rows = state.tokens.shape[0]
    max_steps = context.engine.decode_steps
    chain = context.logits_chain
    output = DecodeOutput(
        tokens=jnp.zeros((rows, max_steps), jnp.int32),
        logprobs=jnp.zeros((rows, max_steps), jnp.float32),
        top_ids=jnp.zeros((rows, max_steps, k), jnp.int32),
        top_logprobs=jnp.zeros((rows, max_steps, k), jnp.float32),
        token_count=jnp.zeros((rows,), jnp.int32),
        steps=jnp.zeros((1,), jnp.int32),
    )

    def unfinished(carry: Carry) -> Bool[Array, ""]:
        _, state, output, _ = carry
        # All data shards take the same number of steps: the collectives of a step must meet.
        any_here = jnp.any(state.left > 0).astype(jnp.int32)
        any_anywhere = jax.lax.pmax(any_here, "data") > 0
        return any_anywhere & (output.steps[0] < max_steps)

    def run_step(carry: Carry) -> Carry:
        cache, state, output, processor_states = carry
        alive_B = (state.left > 0).astype(jnp.int32)
        model_step = Step(
            tokens=state.tokens[:, None], start=state.start, count=alive_B, pages=state.pages
        )
        hidden_BTW, cache = _forward(context, params, cache, model_step)
        logits_BU = _project(context, params, hidden_BTW[:, 0])
        view = _view(cache, state)
        processor_states = chain.observe(processor_states, view)
        processed_BU = chain.apply(logits_BU, state.processors, processor_states, view)
        token_B = _sample(context, processed_BU, state.sampling)
        # grok-1: reports probabilities after temperature and nucleus; here of the model's own
        # distribution, always
        result = likelihood(logits_BU, token_B, k)
        step = output.steps[0]
        output = DecodeOutput(
            tokens=output.tokens.at[:, step].set(token_B),
            logprobs=output.logprobs.at[:, step].set(result.logprob),
            top_ids=output.top_ids.at[:, step].set(result.top_ids),
            top_logprobs=output.top_logprobs.at[:, step].set(result.top_logprobs),
            token_count=output.token_count + alive_B,
            steps=output.steps + 1,
        )
        # grok-1: never stops on EOS, only at the requested length
        ended_B = state.stops_at_eos & (token_B == context.model.eos_token)
        sampling = state.sampling._replace(position=state.sampling.position + alive_B)
        state = state._replace(
            tokens=jnp.where(alive_B > 0, token_B, state.tokens),
            start=state.start + alive_B,
            left=jnp.where(ended_B, 0, state.left - alive_B),
            sampling=sampling,
        )
        return cache, state, output, processor_states

    local_vocabulary = context.model.vocab_size // context.model_shards
    processor_states = chain.start(state.processors, _view(cache, state), local_vocabulary)
    carry = (cache, state, output, processor_states)
    cache, last_state, output, _ = jax.lax.while_loop(unfinished, run_step, carry)
    return output, _with_last_tokens(cache, state, last_state.tokens, max_steps)


def _specs_of_rows(tuple_type: Any) -> Any:
    """Returns the specs that split the fields of a named tuple type over the data axis.

    The spec of a field that is a tuple of arrays holds for all of them.
    """
    return tuple_type(**dict.fromkeys(tuple_type._fields, ROWS))


@dataclass(frozen=True, slots=True)
class StepFunctions:
    """Jitted functions over (params, …).

    The cache, where there is one, is the second argument and donated.
    """

    prefill: Any  # (params, cache, Step) -> (hidden, cache)
    decode: Any  # (params, cache, PackedRows[DecodeInput]) -> (DecodeOutput, cache)
    score: Any  # (params, hidden, position, target) -> Likelihood
    pool: Any  # (params, hidden, count) -> pooled rows


def hidden_spec(context: EngineContext) -> PartitionSpec:
    """Returns how the hidden states between prefill and score lie on the mesh: [B, T, D]."""
    if context.engine.shard_activations:
        return PartitionSpec("data", None, "model")
    return ROWS


def pooled_spec(context: EngineContext) -> PartitionSpec:
    """Returns how pooled rows of hidden states lie on the mesh: [B, D]."""
    if context.engine.shard_activations:
        return PartitionSpec("data", "model")
    return ROWS


def step_functions(context: EngineContext, param_specs: Any) -> StepFunctions:
    """Returns the functions for one engine.

    `param_specs` is the tree of PartitionSpecs of its parameters.

    Rows of every argument but parameters and cache are split over the mesh's data axis, data shards
    one after the other.
    """
    cache = cache_specs(context.model)
    hidden = hidden_spec(context)

    def sharded(
        body: Callable[..., Any],
        in_specs: tuple[Any, ...],
        out_specs: Any,
        *,
        donate: tuple[int, ...],
    ) -> Any:
        mapped = jax.shard_map(
            body,
            mesh=context.mesh,
            in_specs=(param_specs, *in_specs),
            out_specs=out_specs,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donate)

    prefill = partial(_forward, context)
    decode = partial(_decode, context, context.engine.logprobs or 0)
    score = partial(_score, context, context.engine.target_logprobs)
    return StepFunctions(
        prefill=sharded(prefill, (cache, _specs_of_rows(Step)), (hidden, cache), donate=(1,)),
        decode=sharded(
            decode,
            (cache, ROWS),
            (_specs_of_rows(DecodeOutput), cache),
            donate=(1,),
        ),
        score=sharded(score, (hidden, ROWS, ROWS), _specs_of_rows(Likelihood), donate=()),
        pool=sharded(partial(_pool, context), (hidden, ROWS), pooled_spec(context), donate=()),
    )
