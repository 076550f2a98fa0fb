"""Dry run of a model too large for this machine: what it takes on eight GPUs that are not here.

The compiler runs in a process of its own (`python -m actors.engine.planning.memory_plan`): this one
never imports JAX. This module starts it and formats its output; it does not depend on shapes or
meshes.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from actors.model.config import parameter_shapes
from actors.protocol.errors import ModelError
from jobs.run.plan import ROOT, SMALLEST_GPU_MODEL_BYTES, Plan
from pipeline.errors import ConfigError

TARGETS = ("h100", "h200")
TIME_LIMIT_S = 3600.0

Compiler = Callable[[Mapping[str, Any]], dict[str, Any]]  # `request` to the memory plan


def is_full_size(plan: Plan) -> bool:
    """Returns whether the model needs GPUs and the run is not explicitly on CPUs."""
    # the arithmetic of the dry run is enough for smaller models
    weight_bytes = parameter_shapes(plan.model).stored_bytes
    return plan.config.device != "cpu" and weight_bytes >= SMALLEST_GPU_MODEL_BYTES


def lines(plan: Plan, compiler: Compiler | None = None) -> Iterator[str]:
    """Yields the plan of a full-size model as lines of text.

    The first lines are yielded before the compiler has ended.

    Args:
        plan: the run.
        compiler: compiles the step functions; None: `compile_plan`.

    Raises:
        ConfigError, ModelError: the compiler does not take the plan, or cannot run.
    """
    data, model = plan.config.mesh_shape()
    machines = " and ".join(f"{data * model}x{name.upper()}" for name in TARGETS)
    yield ""
    yield (
        f"compiling the step functions of the whole model for {machines}, "
        "with no weights and no GPU; this takes minutes"
    )
    yield from show(memory_plan(plan, compiler), plan.config.mesh_shape())


def memory_plan(plan: Plan, compiler: Compiler | None = None) -> dict[str, Any]:
    """Returns the figures of the compiler for a full-size model; this takes minutes.

    Args:
        plan: the run.
        compiler: compiles the step functions; None: `compile_plan`.

    Raises:
        ConfigError, ModelError: the compiler does not take the plan, or cannot run.
    """
    compiler = compiler or compile_plan
    return compiler(request(plan))


def request(plan: Plan) -> dict[str, Any]:
    """Returns what `actors.engine.planning.memory_plan` takes as its input."""
    return {
        "model": dataclasses.asdict(plan.model),
        "engine": dataclasses.asdict(plan.engine_config()),
        "dtype": plan.config.dtype,
        "mesh": plan.config.mesh_shape(),
        "targets": TARGETS,
    }


def compile_plan(
    plan_request: Mapping[str, Any], interpreter: Path | None = None
) -> dict[str, Any]:
    """Runs `actors.engine.planning.memory_plan` in a process of its own and returns its output.

    Args:
        plan_request: the value of `request`.
        interpreter: Python that runs it; None: the one that `make aot` has set up, else this one.

    Raises:
        ConfigError: the sizes, the model and the mesh do not fit together.
        ModelError: the process failed or took longer than an hour.
    """
    command = [
        str(interpreter or _interpreter()),
        "-m",
        "actors.engine.planning.memory_plan",
        "--json",
        json.dumps(plan_request),
    ]
    try:
        process = subprocess.run(
            command,
            cwd=ROOT,
            env=_environment(math.prod(plan_request["mesh"])),
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"full-size plan: the compiler took more than {TIME_LIMIT_S:.0f} s; give --device cpu "
            "to do without"
        ) from error

    stderr_lines = process.stderr.strip().splitlines() or ["no message"]
    message = stderr_lines[-1]
    if process.returncode == 2:
        raise ConfigError(f"full-size plan: {message}")
    if process.returncode:
        raise ModelError(
            f"full-size plan: the compiler's process ended with code {process.returncode} "
            f"({message})"
        )
    answer: dict[str, Any] = json.loads(process.stdout.strip().splitlines()[-1])
    return answer


def _interpreter() -> Path:
    """Returns the Python that `make aot` has set up, or this one."""
    environment = ROOT / ".venv-aot"
    if (environment / ".installed").exists():
        return environment / "bin" / "python"
    return Path(sys.executable)


def _environment(devices: int) -> dict[str, str]:
    """Returns the environment of the compiler's process.

    JAX sees no GPU and as many virtual CPU devices as the mesh has; this repository is importable.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    xla_flags = os.environ.get("XLA_FLAGS", "")
    flags = f"{xla_flags} --xla_force_host_platform_device_count={devices}".strip()
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "JAX_PLATFORMS": "cpu",
        # the wheels compile without the CUDA libraries that would run the result
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
        "XLA_FLAGS": flags,
    }


def show(answer: Mapping[str, Any], mesh: tuple[int, int]) -> Iterator[str]:
    """Yields the output of `actors.engine.planning.memory_plan` as a table.

    Each kind of GPU is a column.
    """
    if answer["fallback"] is not None:
        yield (
            f"not compiled for GPUs ({answer['fallback']}; `make aot` installs it) but for virtual "
            "CPU devices: "
            "temporaries are not a GPU's, and what follows from them is unknown"
        )
    targets = answer["targets"]
    devices = math.prod(mesh)
    yield (
        f"{answer['parameters']:,} parameters in {answer['tensors']:,} tensors; "
        f"mesh {mesh[0]}x{mesh[1]}; figures of one device"
    )
    yield ""
    yield _row("", [f"{devices}x{target['title']}" for target in targets])
    yield _row("slots", [f"{answer['slots']:,}"] * len(targets))
    for name, values in (
        *_figures(targets),
        *_verdicts(targets, compiled_for_gpus=answer["fallback"] is None),
    ):
        yield _row(name, values)
    shapes = answer["shapes"]
    parts = ", ".join(f"{name} {count}" for name, count in shapes.items())
    yield _row("programs of all shapes", [str(sum(shapes.values()))]) + f"   ({parts})"
    yield _row("seconds for all of this", [f"{answer['seconds']:.0f}"])


def _cells(
    records: Iterable[Mapping[str, Any]], text: Callable[[Mapping[str, Any]], str]
) -> list[str]:
    """Returns the text of each record."""
    return [text(record) for record in records]


def _figures(targets: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Yields sizes and programs: a label, and a value for each target."""
    for label in targets[0]["weights_bytes"]:
        yield label, [_gb(target["weights_bytes"][label]) for target in targets]

    yield "KV pages", _cells(targets, lambda target: _gb(target["cache_bytes"]))
    yield "  tokens in the cache", _cells(targets, lambda target: f"{target['cache_tokens']:,}")
    yield "  limited by", _cells(targets, lambda target: target["cache_limit"])
    for name in targets[0]["programs"]:
        yield from _program(name, [target["programs"][name] for target in targets])


def _verdicts(
    targets: list[dict[str, Any]], *, compiled_for_gpus: bool
) -> Iterator[tuple[str, list[str]]]:
    """Yields what follows from the size of temporaries, which only GPUs' programs determine."""

    def cells(text: Callable[[Mapping[str, Any]], str]) -> list[str]:
        if not compiled_for_gpus:
            return ["unknown"] * len(targets)
        return _cells(targets, text)

    yield "all, in the largest call", cells(lambda target: _gb(target["total_bytes"]))
    yield "memory of the device", _cells(targets, lambda target: _gb(target["capacity_bytes"]))
    yield "it fits", cells(_fits)
    yield "KV tokens that fit", cells(lambda target: f"{target['cache_tokens_fit']:,}")
    yield "sequences of full length", cells(lambda target: f"{target['sequences_fit']:,}")


def _fits(target: Mapping[str, Any]) -> str:
    if target["total_bytes"] <= target["capacity_bytes"]:
        return "yes"
    return "NO"


def _program(name: str, programs: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Yields the rows of one step function."""
    unit = "pages"
    if name == "score":
        unit = "targets"
    elif name == "pool":
        unit = "embeddings"
    yield name, _cells(programs, lambda program: f"{program['rows']} x {program['width']} {unit}")

    yield "  input", _cells(programs, lambda program: _gb(program["input_bytes"]))
    yield "  temporaries", _cells(programs, lambda program: _gb(program["temporary_bytes"]))
    yield "  output", _cells(programs, lambda program: _gb(program["output_bytes"]))

    collectives: set[str] = set()
    for program in programs:
        collectives.update(program["collectives"])
    for collective in sorted(collectives):
        counts = [program["collectives"].get(collective, 0) for program in programs]
        yield f"  {collective}", list(map(str, counts))

    yield "  launches", _cells(programs, lambda program: f"{program['launches']['step']}")
    yield (
        "  launches of a layer",
        _cells(programs, lambda program: f"{program['launches']['layer']}"),
    )
    yield (
        "  int8 weights copied or widened",
        _cells(programs, lambda program: f"{len(program['weight_copies'])}"),
    )
    yield "  compile seconds", _cells(programs, lambda program: f"{program['compile_s']:.1f}")


def _gb(size: int) -> str:
    return f"{size / 1e9:,.3f} GB"


def _row(name: str, values: list[str]) -> str:
    cells = "".join(f"{value:>20}" for value in values)
    return f"{name:<36}{cells}"
