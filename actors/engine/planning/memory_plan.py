"""A model, sizes and a mesh → memory, collectives and compile time of its step functions on GPUs.

    python -m actors.engine.planning.memory_plan --json '{"model": {…}, "engine": {…}, "dtype":
    "bfloat16", "mesh": [1, 8], "targets": ["h100"]}'

Compiles the real functions of steps.py at their largest shapes, with weights that are shapes only.
Prints one line of JSON, or one line on standard error and exit code 2. Where the wheels of
compile_only.py are missing it compiles for virtual CPU devices and reports that: arguments and
collectives are those of a GPU then, temporaries are not. Runs nothing.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp

from actors.engine.config import EngineConfig
from actors.engine.planning.abstract import (
    abstract_cache,
    bytes_per_device,
    decode_input,
    gpu_parameters,
    pool_input,
    prefill_input,
    score_input,
)
from actors.engine.planning.compile_only import TARGETS, make_mesh, missing
from actors.engine.planning.program_text import (
    Launches,
    count_collectives,
    count_launches,
    weight_copies,
)
from actors.engine.planning.sizes import (
    DEVICE_SHARE,
    JAX_SHARE,
    cache_bytes_per_token,
    cache_tokens,
)
from actors.engine.scheduling.call_sizes import call_sizes
from actors.engine.steps import EngineContext, step_functions
from actors.kernels.gpu.layout import TransposedExperts
from actors.kernels.gpu.platform import GPU
from actors.kernels.quantized import QuantizedWeight
from actors.model import sharding
from actors.model.config import ModelConfig, parameter_shapes
from actors.protocol.errors import ModelError


@dataclass(frozen=True, slots=True)
class ProgramPlan:
    """One step function at its largest shape; bytes are of one device."""

    rows: int  # of one data shard
    width: int  # page-table entries of a row; of score: targets; of pool: 1
    argument_bytes: int  # all arguments of the call, as the compiler counts them
    input_bytes: int  # arguments beside weights and cache
    temporary_bytes: int
    output_bytes: int  # beside the cache, which is updated in place
    collectives: Mapping[str, int]  # of one call; of decode: of one token of every slot
    launches: Launches
    # instructions that copy, slice or widen an int8 weight ahead of its product
    weight_copies: list[str]
    compile_s: float  # tracing included

    @property
    def beside_bytes(self) -> int:
        """Memory of a call beside weights and cache."""
        return self.input_bytes + self.temporary_bytes + self.output_bytes


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """Memory of an engine on one device of a GPU model, and what is left."""

    title: str
    compiled_for: str  # kind of device
    capacity_bytes: int
    weights_bytes: Mapping[str, int]  # by kind
    cache_tokens: int  # of all data shards, as compiled
    cache_limit: Literal["size", "slots", "memory"]  # why the cache is not larger
    cache_bytes: int
    programs: Mapping[str, ProgramPlan]
    total_bytes: int  # weights, cache and the program that takes most beside them
    cache_tokens_fit: int  # of all data shards, with the same programs
    sequences_fit: int  # of max_len tokens each


def weights_by_kind(params: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Returns the bytes of the parameters on one device: int8 weights, scales, and the rest."""
    sizes = {"weights, int8": 0, "scales, bfloat16": 0, "embedding, norms, router": 0}
    for tensors in params.values():
        for tensor in tensors.values():
            if isinstance(tensor, QuantizedWeight | TransposedExperts):
                sizes["weights, int8"] += bytes_per_device(tensor.weight)
                sizes["scales, bfloat16"] += bytes_per_device(tensor.scales)
            else:
                sizes["embedding, norms, router"] += bytes_per_device(tensor)
    return sizes


def plan_target(context: EngineContext, title: str, capacity_bytes: int) -> TargetPlan:
    """Compiles each step function of the engine at its largest shape, for the mesh of `context`.

    Args:
        context: its `engine.cache_tokens` is the size of a data shard's cache; None: as much as all
            slots can fill and memory allows.
        title: name of the target.
        capacity_bytes: memory of one device.

    Raises:
        ModelError: the mesh does not divide the model.
    """
    sharding.check_divisible(context.model, context.model_shards)
    weights = weights_by_kind(gpu_parameters(context))
    weight_bytes = sum(weights.values())
    tokens = _cache_tokens(context, int(capacity_bytes * JAX_SHARE) - weight_bytes)
    pages = -(-tokens // context.engine.page_size)
    cache_bytes = bytes_per_device(abstract_cache(context, pages))

    programs = compile_programs(context, pages)
    largest_call_bytes = max(program.beside_bytes for program in programs.values())
    fixed_bytes = weight_bytes + largest_call_bytes
    tokens_fit = max(0, capacity_bytes - fixed_bytes) // _token_bytes(context)
    return TargetPlan(
        title=title,
        compiled_for=context.mesh.devices.flat[0].device_kind,
        capacity_bytes=capacity_bytes,
        weights_bytes=weights,
        cache_tokens=tokens * context.data_shards,
        cache_limit=_cache_limit(context, tokens),
        cache_bytes=cache_bytes,
        programs=programs,
        total_bytes=fixed_bytes + cache_bytes,
        cache_tokens_fit=tokens_fit * context.data_shards,
        sequences_fit=tokens_fit // context.engine.max_len * context.data_shards,
    )


def _token_bytes(context: EngineContext) -> int:
    return cache_bytes_per_token(
        context.model, context.model_shards, jnp.dtype(context.dtype).itemsize
    )


def _cache_tokens(context: EngineContext, free_bytes: int) -> int:
    """Returns the tokens of one data shard's cache on a device with `free_bytes` beside weights.

    The rule is that of `affordable_cache_tokens`.
    """
    affordable = int(free_bytes * DEVICE_SHARE) // _token_bytes(context)
    tokens = cache_tokens(context.engine, context.data_shards, affordable)
    # never less than one sequence: a plan that does not fit shows by how much
    return max(context.engine.max_len, tokens)


def _cache_limit(context: EngineContext, tokens: int) -> Literal["size", "slots", "memory"]:
    """Returns why one data shard's cache has no more than `tokens`."""
    engine = context.engine
    if engine.cache_tokens is not None:
        return "size"
    if tokens == engine.shard_slots(context.data_shards) * engine.max_len:
        return "slots"
    return "memory"


@lru_cache  # without the wheels all targets are the same virtual devices
def compile_programs(context: EngineContext, pages_per_data_shard: int) -> dict[str, ProgramPlan]:
    """Compiles each step function at its largest shape, two at a time."""
    params = gpu_parameters(context)
    cache = abstract_cache(context, pages_per_data_shard)
    functions = step_functions(context, jax.tree.map(lambda array: array.sharding.spec, params))
    shapes = call_sizes(context.engine, context.data_shards, few_sizes=True).programs()
    largest = {name: function_shapes[-1] for name, function_shapes in shapes.items()}
    arguments: dict[str, tuple[Any, ...]] = {
        "prefill": (cache, prefill_input(context, *largest["prefill"]))
    }
    if "pool" in largest:
        arguments["pool"] = pool_input(context, largest["pool"][0])
    else:
        arguments["decode"] = (cache, decode_input(context, *largest["decode"]))
        arguments["score"] = score_input(context, *largest["score"])

    def compile_one(name: str) -> ProgramPlan:
        inputs = [argument for argument in arguments[name] if argument is not cache]
        return _compile(
            getattr(functions, name),
            (params, *arguments[name]),
            context.platform.compiler_options(context.dtype),
            bytes_per_device(inputs),
            largest[name],
        )

    with ThreadPoolExecutor(2) as pool:
        programs = pool.map(compile_one, arguments)
        return dict(zip(arguments, programs, strict=True))


def _compile(
    function: Any,
    arguments: tuple[Any, ...],
    options: Mapping[str, str],
    input_bytes: int,
    shape: tuple[int, int],
) -> ProgramPlan:
    began = time.perf_counter()
    compiled = function.lower(*arguments).compile(compiler_options=dict(options))
    seconds = time.perf_counter() - began
    memory = compiled.memory_analysis()
    text = compiled.as_text()
    return ProgramPlan(
        rows=shape[0],
        width=shape[1],
        argument_bytes=memory.argument_size_in_bytes,
        input_bytes=input_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        output_bytes=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        collectives=count_collectives(text),
        launches=count_launches(text),
        weight_copies=weight_copies(text),
        compile_s=seconds,
    )


def _engine_config(values: Mapping[str, Any]) -> EngineConfig:
    """Returns the configuration of a request; JSON has lists where it has tuples."""
    parameters = tuple(values.get("sampling_parameters", ()))
    return EngineConfig(**{**values, "sampling_parameters": parameters})


def plan(
    request: Mapping[str, Any], find_missing: Callable[[], str | None] = missing
) -> dict[str, Any]:
    """Returns the plan of a request (see the module's example) as plain numbers and strings.

    Args:
        request: model, engine, dtype, mesh and targets.
        find_missing: returns why nothing can be compiled for GPUs, or None.

    Raises:
        ModelError: mesh, sizes or targets do not fit together.
    """
    began = time.perf_counter()
    model = ModelConfig(**request["model"])
    engine = _engine_config(request["engine"])
    data_shards, model_shards = request["mesh"]
    unknown = [name for name in request["targets"] if name not in TARGETS]
    if unknown:
        raise ModelError(
            f"plan: unknown target {', '.join(unknown)}; expected some of {', '.join(TARGETS)}"
        )

    missing_wheels = find_missing()
    targets: list[dict[str, Any]] = []
    for name in request["targets"]:
        target = TARGETS[name]
        if missing_wheels is None:
            mesh = make_mesh(target, data_shards, model_shards)
        else:
            mesh = sharding.make_mesh(data_shards, model_shards)
        context = EngineContext(model, engine, jnp.dtype(request["dtype"]), mesh)
        profile = target.profile
        targets.append(asdict(plan_target(context, profile.title, profile.memory_bytes)))

    tensors = parameter_shapes(model)
    shapes = call_sizes(engine, data_shards, few_sizes=not GPU.reads_whole_table).programs()
    return {
        "parameters": tensors.parameters,
        "tensors": len(tensors),
        "slots": engine.slots,
        "shapes": {name: len(function_shapes) for name, function_shapes in shapes.items()},
        "fallback": missing_wheels,  # why nothing was compiled for GPUs; null when it was
        "targets": targets,
        "seconds": time.perf_counter() - began,
    }


def main(arguments: Sequence[str]) -> int:
    """Plans the request of a command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m actors.engine.planning.memory_plan",
        description=str(__doc__).split("\n", maxsplit=1)[0],
    )
    parser.add_argument("--json", required=True, help="the request, one JSON object")
    request = json.loads(parser.parse_args(arguments).json)
    # a program out of the cache would have taken no time
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        sys.stdout.write(json.dumps(plan(request)) + "\n")
    except ModelError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
