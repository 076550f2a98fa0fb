"""Small engines over the conformance checkpoints, for the tests of this folder."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from actors.engine.compilation import CompiledPrograms
from actors.engine.config import EngineConfig
from actors.engine.engine import Engine
from actors.engine.steps import EngineContext
from actors.kernels.interface import Platform
from actors.kernels.xla.layout import dequantize_params
from actors.model import sharding
from actors.model.config import ModelConfig
from actors.protocol.messages import Completion, Request, RowRef, token_ids
from actors.protocol.sampling import Sampling
from actors.weights import checkpoint
from tests.optimization import UNOPTIMIZED

CONFORMANCE = Path(__file__).parents[2] / "data" / "conformance"


class UnoptimizedContext(EngineContext):
    """Compiles in three fifths of the time."""

    @property
    def platform(self) -> Platform:
        """Kernels and layouts of the mesh's devices, without LLVM's optimizations."""
        platform = super().platform
        default_options = platform.compiler_options

        def options(dtype: DTypeLike) -> dict[str, str]:
            return default_options(dtype) | UNOPTIMIZED

        return replace(platform, compiler_options=options)


@lru_cache
def model_config(case: str) -> ModelConfig:
    return ModelConfig.from_json((CONFORMANCE / case / "config.json").read_text())


@lru_cache
def _params(case: str, mesh_shape: tuple[int, int], dtype: str, dense: bool) -> Any:
    mesh = sharding.make_mesh(*mesh_shape)
    params = checkpoint.load(str(CONFORMANCE / case / "ckpt-0"), model_config(case), mesh)
    return mesh, dequantize_params(params, jnp.dtype(dtype)) if dense else params


@lru_cache
def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(CONFORMANCE / case / "golden.npz") as arrays:
        return dict(arrays)


def make_engine(
    case: str = "mha",
    mesh: tuple[int, int] = (1, 1),
    dtype: str = "float32",
    token_bytes: list[bytes] | None = None,
    dense: bool = True,
    share_programs: bool = True,
    overlaps_calls: bool | None = None,
    is_optimized: bool = False,
    **sizes: Any,
) -> Engine:
    """Returns an engine over a conformance case.

    `sizes` override small defaults of EngineConfig. Engines of equal settings share their compiled
    programs, unless a test counts those that an engine compiles. Tests of rounding set
    `is_optimized`, which compiles as users do.
    """
    device_mesh, params = _params(case, mesh, dtype, dense)
    config = EngineConfig(
        **{
            "max_len": 96,
            "prefill_tokens": 128,
            "slots": 8,
            "page_size": 8,
            "decode_steps": 4,
            "cache_tokens": 768,
            **sizes,
        }
    )
    context = _context(case, config, dtype, device_mesh, is_optimized)
    compiled = None
    if share_programs:
        compiled = _compiled(case, mesh, dtype, dense, config, is_optimized)
    return Engine(context, params, token_bytes, compiled, overlaps_calls)


@lru_cache
def _compiled(
    case: str,
    mesh: tuple[int, int],
    dtype: str,
    dense: bool,
    config: EngineConfig,
    is_optimized: bool,
) -> CompiledPrograms:
    device_mesh, params = _params(case, mesh, dtype, dense)
    context = _context(case, config, dtype, device_mesh, is_optimized)
    return CompiledPrograms(context, params)


def _context(
    case: str, config: EngineConfig, dtype: str, mesh: Mesh, is_optimized: bool
) -> EngineContext:
    context_type = EngineContext if is_optimized else UnoptimizedContext
    return context_type(model_config(case), config, jnp.dtype(dtype), mesh)


def generate(row: int, prompt: list[int], max_tokens: int = 8, **sampling: Any) -> Request:
    """Returns a request to complete `prompt`."""
    return Request(RowRef(0, row), token_ids(prompt), Sampling(max_tokens=max_tokens, **sampling))


def score(row: int, prompt: list[int], *continuations: list[int]) -> Request:
    """Returns a request to score `continuations`."""
    return Request(
        RowRef(0, row),
        token_ids(prompt),
        continuations=tuple(token_ids(ids) for ids in continuations),
    )


def embed(row: int, prompt: list[int]) -> Request:
    """Returns a request to embed `prompt`."""
    return Request(RowRef(0, row), token_ids(prompt), embeds=True)


def run(engine: Engine, requests: list[Request]) -> list[Completion]:
    """Runs `requests` to their end; completions in the order of the requests."""
    for request in requests:
        engine.add(request)
    done: dict[RowRef, Completion] = {}
    for _ in range(10_000):
        if engine.idle:
            return [done[request.ref] for request in requests]
        for completion in engine.step():
            assert completion.ref not in done
            done[completion.ref] = completion
    raise AssertionError(
        f"the engine did not come to an end: {len(done)} of {len(requests)} requests done"
    )
