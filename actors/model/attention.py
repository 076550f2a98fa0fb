"""Grouped-query attention over pages of cached keys and values.

Input: normed activations of new tokens, the pages, and where everything lies (`Placement`). Output: the block's result and
the pages with the new rows written. Knows nothing of tokens, layers or who owns a page.

Positions of one sequence, page size Z = 4, start = 5 tokens cached, count = 2 new ones:

    page table      pages[b, 0]   pages[b, 1]
    position        0  1  2  3    4  5  6  7
                    cached ─────────▶ new▶ ·      · : whatever was left there; never read into a result
    query at 5      ✓  ✓  ✓  ✓    ✓  ✓  ✗  ✗      and ✗ wherever the token is 0 (pad)
"""

from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from actors.model.config import ModelConfig
from actors.model.layers import Linear, add_up, rotate

LOGIT_CAP = 30.0
MASKED = -1e30


class Placement(NamedTuple):
    """Where the tokens of a step lie; computed once and shared by all layers."""

    positions_BT: Int[Array, "B T"]  # of the new tokens in their sequences
    page_BT: Int[Array, "B T"]  # page each new token is written to; P (out of range) for padding, which is not written
    offset_BT: Int[Array, "B T"]  # row within that page
    pages_BJ: Int[Array, "B J"]  # page table, safe to gather with
    live_BS: Bool[Array, "B S"]  # cache positions that hold a key some query may see
    visible_BTS: Bool[Array, "B T S"]  # … and that this query may see


class MultiHeadAttention(hk.Module):
    """Attention of new tokens to all visible tokens of their sequences, for this device's heads."""

    def __init__(self, config: ModelConfig, model_shards: int, name: str, split: int = 1) -> None:
        super().__init__(name=name)
        self.config = config
        self.split = split  # devices that the columns of the result are split over
        self.kv_heads = config.num_kv_heads // model_shards
        self.q_heads = config.num_q_heads // model_shards

    def __call__(
        self, x_BTD: Float[Array, "B T D"], keys: Float[Array, "P Z K C"], values: Float[Array, "P Z K C"], placement: Placement
    ) -> tuple[Float[Array, "B T W"], Float[Array, "P Z K C"], Float[Array, "P Z K C"]]:
        """Returns this block's output (summed over "model", see `add_up`) and the pages with the new rows."""
        q_BTHC = rotate(self._project(x_BTD, self.q_heads, "query"), placement.positions_BT)
        k_BTKC = rotate(self._project(x_BTD, self.kv_heads, "key"), placement.positions_BT)
        v_BTKC = self._project(x_BTD, self.kv_heads, "value")
        keys, values = write_rows(keys, k_BTKC, placement), write_rows(values, v_BTKC, placement)
        out_BTHC = attend(q_BTHC, keys, values, placement, self.config.attn_output_multiplier)
        merged = out_BTHC.reshape(*x_BTD.shape[:2], self.q_heads * self.config.key_size)
        y_BTD = Linear(self.config.emb_size, name="linear")(merged)
        return add_up(y_BTD, self.split), keys, values

    @hk.experimental.name_like("__call__")  # parameter names must not show that this is a method
    def _project(self, x_BTD: Float[Array, "B T D"], heads: int, name: str) -> Float[Array, "B T heads C"]:
        flat = Linear(heads * self.config.key_size, name=name)(x_BTD)
        return flat.reshape(*x_BTD.shape[:2], heads, self.config.key_size)


def write_rows(
    pages_PZKC: Float[Array, "P Z K C"], rows_BTKC: Float[Array, "B T K C"], placement: Placement
) -> Float[Array, "P Z K C"]:
    """Returns the pages with the new rows in place; rows of padding tokens are dropped."""
    return pages_PZKC.at[placement.page_BT, placement.offset_BT].set(rows_BTKC.astype(pages_PZKC.dtype), mode="drop")


def attend(
    q_BTHC: Float[Array, "B T H C"],
    keys: Float[Array, "P Z K C"],
    values: Float[Array, "P Z K C"],
    placement: Placement,
    multiplier: float | int,
) -> Float[Array, "B T H C"]:
    """Returns softmax(30 tanh(q·k x multiplier / 30)) · v over the visible positions; plain XLA, gathers the pages.

    Query head j uses key/value head j // (H / K). Whatever unused rows hold, NaN included, does not reach the result.
    """
    b, t, h, c = q_BTHC.shape
    k_BSKC = _gather(keys, placement.pages_BJ)
    # a weight of zero does not silence a NaN, so rows nobody may see are cleared
    v_BSKC = jnp.where(placement.live_BS[..., None, None], _gather(values, placement.pages_BJ), 0)
    kv_heads = k_BSKC.shape[2]
    q_BTKGC = q_BTHC.reshape(b, t, kv_heads, h // kv_heads, c)
    logits_BKGTS = _einsum("btkgc,bskc->bkgts", q_BTKGC, k_BSKC) * multiplier
    capped = LOGIT_CAP * jnp.tanh(logits_BKGTS / LOGIT_CAP)
    visible = placement.visible_BTS[:, None, None, :, :]
    weights = jax.nn.softmax(jnp.where(visible, capped, MASKED), axis=-1)
    # grok-1: a query that sees no key (a prompt that begins with pad) attends there uniformly to everything, later tokens and
    # padding included; here its attention is zero, so that it depends on nothing.
    weights = jnp.where(visible, weights, 0).astype(q_BTHC.dtype)
    return _einsum("bkgts,bskc->btkgc", weights, v_BSKC).astype(q_BTHC.dtype).reshape(b, t, h, c)


def _gather(pages_PZKC: Float[Array, "P Z K C"], pages_BJ: Int[Array, "B J"]) -> Float[Array, "B S K C"]:
    gathered_BJZKC = pages_PZKC[pages_BJ]
    b, j, z, k, c = gathered_BJZKC.shape
    return gathered_BJZKC.reshape(b, j * z, k, c)


def _einsum(formula: str, x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return jnp.einsum(formula, x, y, precision=precision, preferred_element_type=jnp.float32)
