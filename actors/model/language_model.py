"""Grok-1, one step: new tokens of several sequences to hidden states, with a cache.

A prompt, a piece of a prompt and a single decoded token are the same call with another number of
tokens: the cached ones are read through the page table. Runs per device inside `jax.shard_map` over
("data", "model"): batch and pages are split over "data"; heads, expert width and vocabulary over
"model".

    tokens ─ embed ─▶ h ─ decoder_layer_0 … L-1 ─▶ h ─ rms_norm ─▶ hidden ─ project ─▶ logits

Only the hidden states whose logits are needed are projected.

Token 0 (pad) has one behaviour: it takes a position and has an output of its own, and is never
visible as a key, neither in prefill nor in pieces nor in decode.
"""
# grok-1: pad is masked as a key in prefill and visible in decode, so that the two disagree.

from typing import Any, NamedTuple

import haiku as hk
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32

from actors.kernels.interface import Kernels, Pages, Params, Placement
from actors.kernels.xla.platform import XLA
from actors.model.config import ModelConfig
from actors.model.decoder_layer import DecoderLayer
from actors.model.layers import InOutEmbed, RMSNorm, Update, add_and_norm, all_columns
from actors.protocol.errors import ModelError


class Cache(NamedTuple):
    """Pages of keys and values of all layers. A page is Z consecutive positions of one sequence."""

    keys: tuple[Pages, ...]  # per layer, already rotated
    values: tuple[Pages, ...]
    tokens: Int32[Array, "P Z"]  # the token at each position; 0 is never visible


class Step(NamedTuple):
    """What one call computes."""

    tokens: Int32[Array, "B T"]
    start: Int32[Array, " B"]  # tokens of each sequence that are cached already
    # how many of the T are real; padding is not cached, costs no expert
    count: Int32[Array, " B"]  # type: ignore[assignment]
    # page j holds positions j*Z … (j+1)*Z - 1; entries beyond start + count are never used
    pages: Int32[Array, "B J"]


def init_cache(
    config: ModelConfig, *, pages: int, page_size: int, dtype: DTypeLike, model_shards: int
) -> Cache:
    """Returns an empty cache of one device; of a mesh: all pages and `model_shards=1`."""
    shape = (pages, page_size, config.num_kv_heads // model_shards, config.key_size)
    layers = range(config.num_layers)
    return Cache(
        keys=tuple(jnp.zeros(shape, dtype) for _ in layers),
        values=tuple(jnp.zeros(shape, dtype) for _ in layers),
        tokens=jnp.zeros((pages, page_size), jnp.int32),
    )


def cache_specs(config: ModelConfig) -> Cache:
    """Returns how a cache is split: pages over "data", heads over "model"."""
    rows: Any = (PartitionSpec("data", None, "model", None),) * config.num_layers
    tokens: Any = PartitionSpec("data", None)
    return Cache(keys=rows, values=rows, tokens=tokens)


def check_activation_split(config: ModelConfig, model_shards: int) -> None:
    """Checks that the residual stream can be split evenly over `model_shards` devices.

    Raises:
        ModelError: it cannot; the message names the numbers.
    """
    if config.emb_size % model_shards:
        raise ModelError(
            f"shard_activations: mesh axis model = {model_shards} does not divide the model's "
            f"emb_size {config.emb_size}; "
            "turn shard_activations off or choose a mesh whose model axis divides "
            f"{config.emb_size}"
        )


def forward(
    params: Params,
    step: Step,
    cache: Cache,
    *,
    config: ModelConfig,
    dtype: DTypeLike,
    model_shards: int,
    kernels: Kernels = XLA.kernels,
    shard_activations: bool = False,
) -> tuple[Float[Array, "B T W"], Cache]:
    """Runs the new tokens through all layers; call it inside `shard_map`.

    Args:
        params: the model's parameters, this device's shards, int8 (`QuantizedWeight`) or dense
            (`dequantize_params`).
        step: the new tokens; sequences of one step own different pages, shared pages are only read.
        cache: pages to read and write. Donate it: the result has the same shapes.
        config: the model.
        dtype: type of activations, bfloat16 or float32; dense weights must have it.
        model_shards: size of the mesh axis "model".
        kernels: implementation of experts and attention, see `kernels/choice.py`.
        shard_activations: between blocks each device holds W = D / model_shards columns of the
            residual stream instead of all.

    Returns:
        Hidden states after the final norm (unspecified but finite at padding), [B, T, D], or this
        device's columns of them [B, T, W] when activations are split; and the new cache.

    Raises:
        ModelError: activations are to be split and `model_shards` does not divide D.
    """
    if shard_activations:
        check_activation_split(config, model_shards)
    split = _activation_split(model_shards, shard_activations=shard_activations)

    def run(step: Step, cache: Cache) -> tuple[Array, Cache]:
        hidden, cache = _build(config, model_shards, kernels, split)(step, cache, dtype)
        return hidden, cache

    hidden, cache = hk.transform(run).apply(params, None, step, cache)
    return hidden, cache


def project(
    params: Params,
    hidden_NW: Float[Array, "N W"],
    *,
    config: ModelConfig,
    dtype: DTypeLike,
    model_shards: int,
    shard_activations: bool = False,
) -> Float[Array, "N U"]:
    """Returns float32 logits of this device's U = V / model_shards rows of the vocabulary.

    The output multiplier is applied. Device m holds the tokens m*U … (m+1)*U - 1. `hidden_NW` comes
    from `forward` with the same `shard_activations`, at the positions whose logits are needed.
    """
    split = _activation_split(model_shards, shard_activations=shard_activations)

    def run(hidden_NW: Array) -> Array:
        logits: Array = _build(config, model_shards, XLA.kernels, split).project(
            hidden_NW.astype(dtype)
        )
        return logits

    logits: Array = hk.transform(run).apply(params, None, hidden_NW)
    return logits


def _activation_split(model_shards: int, *, shard_activations: bool) -> int:
    """Returns the devices that the columns of the residual stream are split over."""
    return model_shards if shard_activations else 1


def _build(config: ModelConfig, model_shards: int, kernels: Kernels, split: int) -> "LanguageModel":
    # the transformer is created outside of language_model: its parameters' names start with
    # transformer/, as in the checkpoint
    transformer = Transformer(config, model_shards, kernels, name="transformer", split=split)
    return LanguageModel(transformer, config, model_shards, name="language_model", split=split)


class Transformer(hk.Module):
    """The decoder layers.

    A Python loop: each layer's weights and pages are arrays of their own, nothing is sliced or
    copied.
    """

    def __init__(
        self, config: ModelConfig, model_shards: int, kernels: Kernels, name: str, split: int = 1
    ) -> None:
        super().__init__(name=name)
        self.config = config
        self.model_shards = model_shards
        self.kernels = kernels
        self.split = split

    def __call__(
        self,
        h_BTW: Float[Array, "B T W"],
        cache: Cache,
        placement: Placement,
        real_BT: Bool[Array, "B T"],
    ) -> tuple[Float[Array, "B T W"], Update | None, Cache]:
        """Returns the residual stream, the last update of it, and the cache with the new rows."""
        update = None
        keys = list(cache.keys)
        values = list(cache.values)
        for index in range(self.config.num_layers):
            layer = DecoderLayer(
                self.config,
                self.model_shards,
                self.kernels,
                name=f"decoder_layer_{index}",
                split=self.split,
            )
            h_BTW, update, keys[index], values[index] = layer(
                h_BTW, update, keys[index], values[index], placement, real_BT
            )
        return h_BTW, update, Cache(tuple(keys), tuple(values), cache.tokens)


class LanguageModel(hk.Module):
    """Embedding, transformer, final norm, and the tied projection to logits."""

    def __init__(
        self,
        transformer: Transformer,
        config: ModelConfig,
        model_shards: int,
        name: str,
        split: int = 1,
    ) -> None:
        super().__init__(name=name)
        self.transformer = transformer
        self.config = config
        self.model_shards = model_shards
        self.split = split

    def __call__(
        self, step: Step, cache: Cache, dtype: DTypeLike
    ) -> tuple[Float[Array, "B T W"], Cache]:
        """Returns hidden states after the final norm and the new cache; see `forward`."""
        real_BT = jnp.arange(step.tokens.shape[1])[None, :] < step.count[:, None]
        placement, tokens_PZ = place(step, cache.tokens, real_BT)
        embedded_BTW = self._embedding().encode(step.tokens, dtype, self.split)
        h_BTW = embedded_BTW * self.config.embedding_multiplier_scale
        cache = cache._replace(tokens=tokens_PZ)
        h_BTW, update, cache = self.transformer(h_BTW, cache, placement, real_BT)
        norm = RMSNorm(name="rms_norm", split=self.split)
        _, hidden_BTW = add_and_norm(h_BTW, update, norm, self.transformer.kernels, self.split)
        return hidden_BTW, cache

    @hk.experimental.name_like("__call__")
    def project(self, hidden_NW: Float[Array, "N W"]) -> Float[Array, "N U"]:
        """Returns this device's logits, float32."""
        logits_NU = self._embedding().decode(all_columns(hidden_NW, self.split))
        return logits_NU * self.config.output_multiplier_scale

    @hk.experimental.name_like("__call__")
    def _embedding(self) -> InOutEmbed:
        return InOutEmbed(
            self.config.vocab_size // self.model_shards, self.config.emb_size, name="in_out_embed"
        )


def place(
    step: Step, tokens_PZ: Int32[Array, "P Z"], real_BT: Bool[Array, "B T"]
) -> tuple[Placement, Int32[Array, "P Z"]]:
    """Returns the placement and visibility of the step's tokens, and the token ids of all pages."""
    pages, page_size = tokens_PZ.shape
    positions_BT = step.start[:, None] + jnp.arange(step.tokens.shape[1], dtype=jnp.int32)[None, :]
    # grok-1: pads prompts on the right with token 0 and relies on the mask of token 0; here padding
    # is counted, never written. Padding, and positions beyond the page table, go to a page that
    # does not exist: their writes are dropped.
    table_page_BT = jnp.take_along_axis(
        step.pages, positions_BT // page_size, axis=1, mode="fill", fill_value=pages
    )
    page_BT = jnp.where(real_BT & (table_page_BT >= 0), table_page_BT, pages)
    tokens_PZ = tokens_PZ.at[page_BT, positions_BT % page_size].set(step.tokens, mode="drop")
    pages_BJ = jnp.clip(step.pages, 0, pages - 1)
    cached_BS = tokens_PZ[pages_BJ].reshape(step.pages.shape[0], -1)
    cache_position_S = jnp.arange(cached_BS.shape[1], dtype=jnp.int32)
    length_B = jnp.where(step.count > 0, step.start + step.count, 0)
    live_BS = (cached_BS > 0) & (cache_position_S[None, :] < length_B[:, None])
    visible_BTS = live_BS[:, None, :] & (
        cache_position_S[None, None, :] <= positions_BT[:, :, None]
    )
    placement = Placement(
        positions_BT, page_BT, positions_BT % page_size, pages_BJ, length_B, live_BS, visible_BTS
    )
    return placement, tokens_PZ
