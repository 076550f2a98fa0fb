"""Requests the programs of an engine before its weights are loaded, so that both happen at once.

Only on platforms where compiling takes as long as loading, and where every run uses few sizes: on
CPUs the first batch decides which sizes a run needs.
"""

from collections.abc import Callable, Sequence

from actors.engine.compilation import CompiledPrograms, ProgramShape
from actors.engine.config import StepName
from actors.engine.planning.abstract import abstract_cache, gpu_parameters
from actors.engine.programs import affordable_cache_tokens
from actors.engine.scheduling.call_sizes import call_sizes
from actors.engine.steps import EngineContext


def early_programs(
    context: EngineContext,
    steps: Sequence[StepName],
    *,
    dense: bool,
    wait_for_turn: Callable[[], None] = lambda: None,
    make_programs: Callable[..., CompiledPrograms] = CompiledPrograms,
) -> CompiledPrograms | None:
    """Requests every size of the steps that a run uses, from abstract arguments.

    Args:
        context: model, sizes, dtype and mesh.
        steps: step functions that the run calls.
        dense: weights are dequantized at load.
        wait_for_turn: called in the threads before they compile; may wait.
        make_programs: class of the programs.

    Returns:
        The programs; None where programs are compiled when the first batch needs them.

    Raises:
        ModelError: not even one sequence of `max_len` fits beside the weights.
    """
    if dense or not context.platform.compiles_before_loading:
        return None
    params = gpu_parameters(context)
    tokens = affordable_cache_tokens(context, params)
    pages = -(-tokens // context.engine.page_size)
    cache = abstract_cache(context, pages)

    compiled = make_programs(context, params, wait_for_turn)
    for shape in shapes_largest_first(context, steps):
        compiled.request(shape, cache)
    return compiled


def shapes_largest_first(context: EngineContext, steps: Sequence[StepName]) -> list[ProgramShape]:
    """Returns all sizes of the steps: the largest one of each step, which holds any call, first."""
    sizes = _sizes(context)
    largest = largest_shapes(context, steps)
    smaller: list[ProgramShape] = []
    for step in steps:
        shapes = [ProgramShape(step, rows, columns) for rows, columns in sizes[step]]
        smaller += [shape for shape in shapes if shape not in largest]
    smaller.sort(key=lambda shape: shape.cost, reverse=True)
    return largest + smaller


def largest_shapes(context: EngineContext, steps: Sequence[StepName]) -> list[ProgramShape]:
    """Returns the largest size of each step."""
    sizes = _sizes(context)
    return [ProgramShape(step, *sizes[step][-1]) for step in steps]


def _sizes(context: EngineContext) -> dict[str, tuple[tuple[int, int], ...]]:
    few_sizes = not context.platform.reads_whole_table
    return call_sizes(context.engine, context.data_shards, few_sizes=few_sizes).programs()
