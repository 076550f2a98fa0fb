"""early_programs.py: which programs are compiled while weights load, and in which order."""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from actors.engine.compilation import CompiledPrograms, ProgramShape
from actors.engine.config import EngineConfig
from actors.engine.early_programs import early_programs, largest_shapes, shapes_largest_first
from actors.engine.scheduling.call_sizes import call_sizes
from actors.engine.steps import EngineContext
from actors.kernels.gpu.platform import INTERPRETED
from actors.kernels.interface import Platform
from actors.model.sharding import make_mesh
from tests.actors.engine.engines import model_config


@dataclass(frozen=True, slots=True)
class GpuContext(EngineContext):
    """A context that takes CPU devices for GPUs."""

    @property
    def platform(self) -> Platform:
        return INTERPRETED


class RequestedPrograms(CompiledPrograms):
    """Notes requests and compiles nothing."""

    def __init__(self, context: EngineContext, params: Any, _turn: Any) -> None:
        super().__init__(context, params)
        self.shapes: list[ProgramShape] = []
        self.caches: list[Any] = []

    def request(self, shape: ProgramShape, cache: Any) -> "Future[Any]":
        self.shapes.append(shape)
        self.caches.append(cache)
        return Future()


def context_of(context_class: type[EngineContext], **sizes: Any) -> EngineContext:
    engine = EngineConfig(64, prefill_tokens=8192, slots=256, page_size=4, **sizes)
    return context_class(model_config("mha"), engine, jnp.dtype("bfloat16"), make_mesh(1, 2))


def test_gpus_compile_all_sizes_of_used_steps_largest_first() -> None:
    context = context_of(GpuContext, cache_tokens=640)
    programs = early_programs(
        context, ("prefill", "decode"), dense=False, make_programs=RequestedPrograms
    )
    assert isinstance(programs, RequestedPrograms)
    largest = [ProgramShape("prefill", 1024, 16), ProgramShape("decode", 256, 16)]
    assert programs.shapes[:2] == largest == largest_shapes(context, ("prefill", "decode"))

    sizes = call_sizes(context.engine, 1, few_sizes=True)
    requested = {(shape.name, shape.rows) for shape in programs.shapes}
    assert requested == {("prefill", rows) for rows in sizes.prefill_rows} | {
        ("decode", rows) for rows in sizes.decode_rows
    }
    costs = [shape.cost for shape in programs.shapes[2:]]
    assert costs
    assert costs == sorted(costs, reverse=True)
    assert programs.caches[0].tokens.shape == (640 // 4, 4)


def test_largest_shapes_hold_all_others() -> None:
    context = context_of(GpuContext)
    shapes = shapes_largest_first(context, ("prefill", "score"))
    assert len(set(shapes)) == len(shapes)
    held = [shape for shape in shapes if any(large.holds(shape) for large in shapes[:2])]
    assert {shape for shape in shapes if shape.name == "prefill"} <= set(held)


def test_cpus_and_dense_weights_compile_what_the_first_batch_needs() -> None:
    steps = ("prefill", "decode")
    assert early_programs(context_of(EngineContext), steps, dense=False) is None
    assert early_programs(context_of(GpuContext), steps, dense=True) is None
