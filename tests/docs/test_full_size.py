"""The figures of docs/full-size.md that need no compiler: parameters, weights, KV cache."""

import re

import jax.numpy as jnp
import pytest

from actors.engine.config import EngineConfig
from actors.engine.planning.abstract import gpu_parameters
from actors.engine.planning.memory_plan import weights_by_kind
from actors.engine.planning.sizes import cache_bytes_per_token
from actors.engine.steps import EngineContext
from actors.model import sharding
from actors.model.config import GROK_1, parameter_shapes
from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "full-size.md").read_text()


def figures(row: str) -> list[float]:
    """Returns the figures of a row of the table, one per kind of machine."""
    [cells] = re.findall(rf"^ *{re.escape(row)}  +(.*)$", PAGE, re.MULTILINE)
    return [float(text.replace(",", "")) for text in re.findall(r"[\d,.]*\d", cells)]


def test_page_has_the_parameters_of_grok_1() -> None:
    shapes = parameter_shapes(GROK_1)
    assert f"{shapes.parameters:,} parameters in {len(shapes)} tensors" in PAGE


def test_page_has_the_weights_of_a_device() -> None:
    mesh = sharding.make_mesh(1, 8)
    context = EngineContext(GROK_1, EngineConfig(max_len=8192), jnp.dtype("bfloat16"), mesh)
    for name, size_bytes in weights_by_kind(gpu_parameters(context)).items():
        assert figures(name) == [pytest.approx(size_bytes / 1e9, abs=0.0006)] * 2, name


def test_page_has_the_bytes_of_the_cache() -> None:
    token_bytes = cache_bytes_per_token(GROK_1, 8, 2)
    assert f"{token_bytes:,} bytes per token" in PAGE
    for tokens, size_gb in zip(figures("tokens in the cache"), figures("KV pages"), strict=True):
        assert tokens * token_bytes / 1e9 == pytest.approx(size_gb, abs=0.0006)
