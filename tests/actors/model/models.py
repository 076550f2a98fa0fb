"""Small models on meshes of virtual devices: steps in, NumPy arrays out."""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from actors.kernels.interface import Kernels
from actors.kernels.xla.layout import dequantize_params
from actors.kernels.xla.platform import XLA
from actors.model import sharding
from actors.model.config import ModelConfig
from actors.model.decoder_layer import DecoderLayer
from actors.model.language_model import Cache, Step, cache_specs, forward, init_cache, project
from actors.model.layers import add_update
from actors.model.moe import Router
from actors.weights import checkpoint
from tests.optimization import UNOPTIMIZED

CONFORMANCE = Path(__file__).parents[2] / "data" / "conformance"
CASES = ("deep", "gqa", "grokconst", "mha")
PAGE_SIZE = 8
# Small enough for loops in float64.
TINY_CONFIG = ModelConfig(
    vocab_size=16,
    emb_size=8,
    widening_factor=2,
    key_size=4,
    num_q_heads=4,
    num_kv_heads=2,
    num_layers=1,
    attn_output_multiplier=0.5,
    embedding_multiplier_scale=1.0,
    output_multiplier_scale=1.0,
    sequence_len=16,
)


class Outputs(NamedTuple):
    """What a step computed, with what lies between the layers."""

    logits: np.ndarray  # [B, T, V]
    final: np.ndarray  # [B, T, D]
    streams: np.ndarray  # [B, L + 1, T, D] residual stream before the first and after each layer
    gates: np.ndarray  # [B, L, T, X]
    experts: np.ndarray  # [B, L, T, X]


class TinyModel:
    """A model on a mesh; row b of the batch owns `pages_per_row` pages of its data shard."""

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        mesh: Any,
        dtype: Any,
        rows: int = 4,
        pages_per_row: int = 7,
        shard_activations: bool = False,
        kernels: Kernels = XLA.kernels,
    ) -> None:
        self.config, self.params, self.mesh, self.dtype = config, params, mesh, dtype
        self.shard_activations, self.kernels = shard_activations, kernels
        self.rows, self.pages_per_row = rows, pages_per_row
        lanes = mesh.shape["data"]
        self.lane_pages = rows // lanes * pages_per_row + 1
        table = np.arange(rows // lanes * pages_per_row, dtype=np.int32).reshape(-1, pages_per_row)[
            :, ::-1
        ]
        # pages of a row lie in descending order: order must not matter
        self.table = np.tile(table, (lanes, 1))
        specs = jax.tree.map(lambda a: a.sharding.spec, params)
        lane = PartitionSpec("data")
        streams = PartitionSpec("data", None, None, "model") if shard_activations else lane
        final = PartitionSpec("data", None, "model") if shard_activations else lane
        outs = Outputs(PartitionSpec("data", None, "model"), final, streams, lane, lane)
        body = jax.shard_map(
            self._body,
            mesh=mesh,
            in_specs=(specs, lane, cache_specs(config)),
            out_specs=(outs, cache_specs(config)),
            # what was gathered counts as differing between devices, and a kernel says nothing of it
            check_vma=not shard_activations and kernels is XLA.kernels,
        )
        # Kernels in the interpreter run for longer than they compile.
        options = dict(UNOPTIMIZED) if kernels is XLA.kernels else None
        self._run = jax.jit(body, compiler_options=options)

    def _body(self, params: Any, step: Step, cache: Cache) -> tuple[Outputs, Cache]:
        sizes: Any = {
            "config": self.config,
            "dtype": self.dtype,
            "model_shards": self.mesh.shape["model"],
        }
        sizes["shard_activations"] = self.shard_activations
        routes, streams = [], []

        def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            result = call(*args, **kwargs)
            if isinstance(context.module, Router) and context.method_name == "__call__":
                routes.append(result)
            if isinstance(context.module, DecoderLayer) and context.method_name == "__call__":
                if not streams:
                    streams.append(args[0])
                streams.append(add_update(result[0], result[1]))
            return result

        with hk.experimental.intercept_methods(watch):
            hidden, cache = forward(params, step, cache, kernels=self.kernels, **sizes)
        b, t, d = hidden.shape
        logits = project(params, hidden.reshape(b * t, d), **sizes).reshape(b, t, -1)
        gates, experts = (
            jnp.stack([r[i].reshape(b, t, -1) for r in routes], axis=1) for i in (0, 1)
        )
        return Outputs(logits, hidden, jnp.stack(streams, axis=1), gates, experts), cache

    def cache(self) -> Cache:
        return init_cache(
            self.config,
            pages=self.lane_pages * self.mesh.shape["data"],
            page_size=PAGE_SIZE,
            dtype=self.dtype,
            model_shards=1,
        )

    def step(
        self,
        cache: Cache,
        rows: Sequence[Sequence[int]],
        start: Sequence[int] | None = None,
        width: int | None = None,
    ) -> tuple[Outputs, Cache]:
        """Runs `rows` (others of the batch are idle), padded to `width` with token 7."""
        width = width or max(map(len, rows))
        tokens = np.full((self.rows, width), 7, np.int32)
        count, begin = np.zeros(self.rows, np.int32), np.zeros(self.rows, np.int32)
        for b, row in enumerate(rows):
            tokens[b, : len(row)] = row
            count[b] = len(row)
            begin[b] = start[b] if start is not None else 0
        outputs, cache = self._run(
            self.params, Step(tokens, begin, count, self.table.copy()), cache
        )
        return Outputs(
            *(np.asarray(a.astype(jnp.float32) if a.dtype == jnp.bfloat16 else a) for a in outputs)
        ), cache

    def prefill(self, rows: Sequence[Sequence[int]], width: int | None = None) -> Outputs:
        return self.step(self.cache(), rows, width=width)[0]


@lru_cache
def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(CONFORMANCE / case / "golden.npz") as arrays:
        return dict(arrays)


@lru_cache
def config_of(case: str) -> ModelConfig:
    return ModelConfig.from_json((CONFORMANCE / case / "config.json").read_text())


@lru_cache
def conformance_model(
    case: str,
    mesh: tuple[int, int] = (1, 1),
    dtype: str = "float32",
    dense: bool = True,
    shard_activations: bool = False,
) -> TinyModel:
    folder = CONFORMANCE / case / "ckpt-0"
    return load_model(
        folder, config_of(case), mesh, dtype, dense, shard_activations=shard_activations
    )


def load_model(
    folder: Path,
    config: ModelConfig,
    mesh: tuple[int, int],
    dtype: str = "float32",
    dense: bool = True,
    **sizes: Any,
) -> TinyModel:
    device_mesh = sharding.make_mesh(*mesh)
    params: Any = checkpoint.load(folder, config, device_mesh)
    if dense:
        params = dequantize_params(params, jnp.dtype(dtype))
    return TinyModel(config, params, device_mesh, jnp.dtype(dtype), **sizes)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def prompts(case: str) -> list[list[int]]:
    return [golden(case)[f"p{i}_tokens"].tolist() for i in range(4)]


assert_close = partial(np.testing.assert_allclose, rtol=0)
