"""The three functions that an engine runs on its mesh, ready to be compiled for any shape of their arguments.

`prefill` puts new tokens of several sequences into their pages, `score` reads log-probs of targets
at chosen positions of a prefill's output, `decode` draws several tokens for every sequence of a
call on the device. Pure functions of arrays: the weights and the cache themselves lie in
programs.py, and whose they are is the engine's business.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from actors.engine import penalty
from actors.engine.config import EngineConfig
from actors.engine.sampling import SamplingArrays, mask_eos, sample_tokens
from actors.engine.vocabulary import Likelihood, first_id, likelihood, most_likely, whole
from actors.kernels.choice import for_platform
from actors.kernels.interface import Kernels
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


class DecodeInput(NamedTuple):
    """State of the sequences of one decode call; rows that are not in use have `left` 0."""

    tokens: Int[Array, " B"]  # last known token: the first input
    start: Int[Array, " B"]  # tokens in the cache
    left: Int[Array, " B"]  # tokens that may still be drawn
    stops_at_eos: Bool[Array, " B"]
    pages: Int[Array, "B J"]
    sampling: SamplingArrays


class DecodeOutput(NamedTuple):
    """What a decode call drew; row b is valid for its first `token_count[b]` steps."""

    tokens: Int[Array, "B S"]
    logprobs: Float[Array, "B S"]
    top_ids: Int[Array, "B S K"]
    top_logprobs: Float[Array, "B S K"]
    token_count: Int[Array, " B"]
    steps: Int[Array, " data_shards"]  # run on the device, the same for every data shard


# from step to step of a decode; last: tokens seen
Carry = tuple[Cache, DecodeInput, DecodeOutput, Bool[Array, "B U"] | None]


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What every program is compiled against.

    Raises:
        ModelError: activations are to be split over a model axis that does not divide the model's width.
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
        return self.kernels.cache_dtype(self.dtype)

    @property
    def kernels(self) -> Kernels:
        """What the layers run on the mesh's devices."""
        return for_platform(self.mesh.devices.flat[0].platform)


def _prefill(
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
    return likelihood(logits_NU, target_N, k)


def _seen(context: EngineContext, cache: Cache, state: DecodeInput) -> Bool[Array, "B U"] | None:
    """Returns which tokens lie in the cache of each row, this device's part.

    None where no row of the run has a penalty.
    """
    if state.sampling.repetition_penalty is None:
        return None
    shape = (state.tokens.shape[0], context.model.vocab_size // context.model_shards)
    return jax.lax.cond(
        penalty.asked_for(state.sampling.repetition_penalty),
        lambda: penalty.seen_in_cache(cache.tokens, state.pages, state.start, shape[1]),
        lambda: jnp.zeros(shape, jnp.bool_),
    )


def _choose_tokens(
    context: EngineContext,
    logits_BU: Float[Array, "B U"],
    sampling: SamplingArrays,
    seen_BU: Bool[Array, "B U"] | None,
) -> Int[Array, " B"]:
    """Chooses the next token: the most likely one, or a drawn one where a row's temperature is above 0."""
    if seen_BU is not None and sampling.repetition_penalty is not None:
        logits_BU = penalty.penalised(logits_BU, seen_BU, sampling.repetition_penalty)
    allowed_BU = mask_eos(logits_BU, sampling, context.model.eos_token, first_id(logits_BU))
    # The predicate is the same on all devices of the model axis, so all of them take the branch
    # with the collective.
    return jax.lax.cond(
        jnp.any(sampling.temperature > 0.0),
        lambda x: sample_tokens(whole(x), sampling),
        most_likely,
        allowed_BU,
    )


def _decode(
    context: EngineContext, k: int, params: Any, cache: Cache, state: DecodeInput
) -> tuple[DecodeOutput, Cache]:
    rows, steps = state.tokens.shape[0], context.engine.decode_steps
    output = DecodeOutput(
        tokens=jnp.zeros((rows, steps), jnp.int32),
        logprobs=jnp.zeros((rows, steps), jnp.float32),
        top_ids=jnp.zeros((rows, steps, k), jnp.int32),
        top_logprobs=jnp.zeros((rows, steps, k), jnp.float32),
        token_count=jnp.zeros((rows,), jnp.int32),
        steps=jnp.zeros((1,), jnp.int32),
    )

    def alive(carry: Carry) -> Bool[Array, ""]:
        _, now, out, _ = carry
        # All data shards take the same number of steps: the collectives of a step must meet.
        busy = jax.lax.pmax(jnp.any(now.left > 0).astype(jnp.int32), "data") > 0
        return busy & (out.steps[0] < steps)

    def one(carry: Carry) -> Carry:
        cache, now, out, seen_BU = carry
        alive_B = (now.left > 0).astype(jnp.int32)
        step = Step(tokens=now.tokens[:, None], start=now.start, count=alive_B, pages=now.pages)
        hidden_BTW, cache = _prefill(context, params, cache, step)
        logits_BU = _project(context, params, hidden_BTW[:, 0])
        if seen_BU is not None:
            seen_BU = penalty.also_seen(seen_BU, now.tokens)
        token_B = _choose_tokens(context, logits_BU, now.sampling, seen_BU)
        # grok-1: reports probabilities after temperature and nucleus; here of the model's own
        # distribution, always
        kept = likelihood(logits_BU, token_B, k)
        at = out.steps[0]
        out = DecodeOutput(
            tokens=out.tokens.at[:, at].set(token_B),
            logprobs=out.logprobs.at[:, at].set(kept.logprob),
            top_ids=out.top_ids.at[:, at].set(kept.top_ids),
            top_logprobs=out.top_logprobs.at[:, at].set(kept.top_logprobs),
            token_count=out.token_count + alive_B,
            steps=out.steps + 1,
        )
        # grok-1: never stops on EOS, only at the length asked for
        ended_B = now.stops_at_eos & (token_B == context.model.eos_token)
        now = now._replace(
            tokens=token_B,
            start=now.start + alive_B,
            left=jnp.where(ended_B, 0, now.left - alive_B),
            sampling=now.sampling._replace(position=now.sampling.position + alive_B),
        )
        return cache, now, out, seen_BU

    cache, _, output, _ = jax.lax.while_loop(
        alive, one, (cache, state, output, _seen(context, cache, state))
    )
    return output, cache


def _rows_like(kind: Any) -> Any:
    """Returns the tree of specs that splits every field of a (nested) named tuple type over the data axis."""
    return kind(
        *[_rows_like(SamplingArrays) if name == "sampling" else ROWS for name in kind._fields]
    )


@dataclass(frozen=True, slots=True)
class StepFunctions:
    """Jitted functions over (params, …).

    The cache, where there is one, is the second argument and donated.
    """

    prefill: Any  # (params, cache, Step) -> (hidden, cache)
    decode: Any  # (params, cache, DecodeInput) -> (DecodeOutput, cache)
    score: Any  # (params, hidden, position, target) -> Likelihood


def step_functions(context: EngineContext, param_specs: Any) -> StepFunctions:
    """Returns the functions for one engine.

    `param_specs` is the tree of PartitionSpecs of its parameters.

    Rows of every argument but parameters and cache are split over the mesh's data axis, data shards one
    after the other.
    """
    cache = cache_specs(context.model)
    hidden = PartitionSpec("data", None, "model") if context.engine.shard_activations else ROWS

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

    decode = partial(_decode, context, context.engine.logprobs or 0)
    score = partial(_score, context, context.engine.prompt_logprobs or 0)
    return StepFunctions(
        prefill=sharded(
            partial(_prefill, context), (cache, _rows_like(Step)), (hidden, cache), donate=(1,)
        ),
        decode=sharded(
            decode, (cache, _rows_like(DecodeInput)), (_rows_like(DecodeOutput), cache), donate=(1,)
        ),
        score=sharded(score, (hidden, ROWS, ROWS), _rows_like(Likelihood), donate=()),
    )
