"""Measures the speed of the engine on this machine, relative to the limits of the machine.

Runs in one process, without Ray and without text. All figures are measured in one run: the
machine's own rates, prefill, and decode at several numbers of slots.
"""

import dataclasses
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from actors.engine.config import EngineConfig
from actors.engine.engine import Engine
from actors.engine.steps import EngineContext
from actors.kernels.choice import select_platform
from actors.model import arithmetic, sharding
from actors.model.config import ModelConfig
from actors.protocol.messages import ReplicaStats, Request, RowRef, token_ids
from actors.protocol.sampling import Sampling
from jobs.benchmarks.engine_config import EngineBenchmarkConfig
from jobs.benchmarks.measurement import increase
from jobs.benchmarks.models import MODELS, random_params
from jobs.checks.ceilings import CPU_SIZES, GPU_SIZES, TINY_SIZES, measure_ceilings
from jobs.checks.gpu_trace import GpuTrace, KernelTime, trace_gpu

PAGE_SIZE = EngineConfig(max_len=1).page_size
REPEATS = 3  # of each measurement; the median counts
MAX_KERNELS = 20  # in the figures; the longest ones
FIRST_TOKEN = 3  # lower ids are padding, end-of-text and the like


@dataclass(frozen=True)
class _Benchmark:
    config: EngineBenchmarkConfig
    model: ModelConfig
    mesh: Mesh
    params: Any
    machine: dict[str, Any]

    @property
    def dtype(self) -> Any:
        return jnp.dtype(self.config.dtype)

    def engine(self, slots: int, max_len: int, *, reuse_prefixes: bool = True) -> Engine:
        """Returns an engine of the given number of slots over the shared weights."""
        config = self.config
        sequences = max(slots, config.prefill_rows)
        sizes = EngineConfig(
            max_len=max_len,
            prefill_tokens=config.batch_tokens,
            chunk=config.block,
            slots=slots,
            cache_tokens=sequences * (max_len + PAGE_SIZE),  # the last page of each is partly empty
            decode_steps=config.decode_steps,
            reuse_prefixes=reuse_prefixes,
        )
        context = EngineContext(self.model, sizes, self.dtype, self.mesh)
        return Engine(context, self.params)

    def requests(self, rows: int, length: int, new_tokens: int) -> list[Request]:
        """Returns requests with random prompts of one length."""
        generator = np.random.default_rng(rows)
        prompts_BT = generator.integers(FIRST_TOKEN, self.model.vocab_size, (rows, length))
        sampling = Sampling(max_tokens=new_tokens, ignore_eos=True)

        requests = []
        for row, prompt in enumerate(prompts_BT.tolist()):
            requests.append(Request(RowRef(0, row), token_ids(prompt), sampling))
        return requests


def measure(config: EngineBenchmarkConfig, mesh_shape: tuple[int, int]) -> dict[str, Any]:
    """Returns all figures of one run, with the machine and the configuration."""
    model = MODELS[config.model]
    if config.layers is not None:
        model = model.with_layers(config.layers)
    mesh = sharding.make_mesh(*mesh_shape)
    # before the weights take the memory that the rates are measured in
    machine = describe_machine(config.dtype, is_trial=model.is_trial)
    dense = select_platform(jax.devices()[0].platform).is_dense(config.weights)
    params = random_params(model, mesh, jnp.dtype(config.dtype), dense=dense)
    benchmark = _Benchmark(config, model.config, mesh, params, machine)

    return {
        "date": time.strftime("%Y-%m-%d"),
        "config": dataclasses.asdict(config),
        "layers": model.config.num_layers,
        "machine": benchmark.machine,
        "prefill": _measure_prefill(benchmark),
        "decode": [_measure_decode(benchmark, slots) for slots in config.slot_counts()],
        "device_peak_bytes": _device_peak_bytes(),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def describe_machine(dtype: str, *, is_trial: bool) -> dict[str, Any]:
    """Returns the machine and its own rates, which the figures are relative to."""
    device = jax.devices()[0]
    sizes = GPU_SIZES
    if is_trial:
        sizes = TINY_SIZES
    elif device.platform == "cpu":
        sizes = CPU_SIZES
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "platform": device.platform,
        "device": device.device_kind,
        "jax": jax.__version__,
        **dataclasses.asdict(measure_ceilings(dtype, sizes)),
    }


def _device_peak_bytes() -> int | None:
    """Returns the peak memory of the first device; None on CPUs, where JAX does not count it."""
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else None


def _run(engine: Engine, requests: Sequence[Request]) -> ReplicaStats:
    """Runs requests to their end; returns the increase of the engine's counters."""
    before = engine.stats()
    for request in requests:
        engine.add(request)
    while not engine.idle:
        engine.step()
    return increase(before, engine.stats())


def _median_seconds(run: Callable[[], ReplicaStats], counter: str) -> float:
    seconds: list[float] = [getattr(run(), counter) for _ in range(REPEATS)]
    return statistics.median(seconds)


def _measure_prefill(benchmark: _Benchmark) -> dict[str, Any]:
    rows = benchmark.config.prefill_rows
    length = benchmark.config.prefill_length
    engine = benchmark.engine(rows, length + 2, reuse_prefixes=False)
    requests = benchmark.requests(rows, length + 1, 1)  # decode computes the last prompt token

    cold = _run(engine, requests)
    seconds = _median_seconds(lambda: _run(engine, requests), "prefill_s")

    trace = trace_gpu(lambda: _run(engine, requests))

    tokens = rows * length
    flops = tokens * arithmetic.token_flops(benchmark.model, length / 2)
    return {
        "rows": rows,
        "length": length,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "mfu": flops / seconds / benchmark.machine["product_flops_per_s"],
        "padding": 1 - cold.prefill_tokens / cold.prefill_positions,
        "programs": cold.programs,
        "first_token_cold_s": cold.busy_s + cold.compile_s,
        "compile_s": cold.compile_s,
        "gpu": _kernel_figures(trace, cold.prefill_calls * benchmark.model.num_layers),
    }


def _measure_decode(benchmark: _Benchmark, slots: int) -> dict[str, Any]:
    """Measures decode with all slots in use.

    Prompts are whole pages and one token: from the second run on the pages are cached, and all
    slots decode from the first step.
    """
    new_tokens = benchmark.config.new_tokens
    pages = -(-benchmark.config.context // PAGE_SIZE)
    prompt_tokens = pages * PAGE_SIZE + 1
    engine = benchmark.engine(slots, prompt_tokens + new_tokens)
    requests = benchmark.requests(slots, prompt_tokens, new_tokens)

    cold = _run(engine, requests)
    step_s = _median_seconds(lambda: _run(engine, requests), "decode_s") / new_tokens
    trace = trace_gpu(lambda: _run(engine, requests))

    mean_length = prompt_tokens + new_tokens / 2
    memory_s = _step_bytes(benchmark, slots, mean_length) / benchmark.machine["read_bytes_per_s"]
    token_flops = arithmetic.token_flops(benchmark.model, mean_length)
    step_flops = slots * (token_flops + arithmetic.projection_flops(benchmark.model))
    product_s = step_flops / benchmark.machine["product_flops_per_s"]
    return {
        "slots": slots,
        "seconds_per_step": step_s,
        "tokens_per_s": slots / step_s,
        "mbu": memory_s / step_s,
        "mfu": product_s / step_s,
        "of_roof": max(memory_s, product_s) / step_s,
        "programs": cold.programs,
        "compile_s": cold.compile_s,
        "gpu": _kernel_figures(trace, new_tokens * benchmark.model.num_layers),
    }


def _kernel_figures(trace: GpuTrace | None, layer_runs: int) -> dict[str, Any] | None:
    """Returns the times of a traced run, in microseconds for each run of a layer.

    What runs once a step, such as the projection to the vocabulary, is spread over the layers.

    Args:
        trace: of one run; None: not on a GPU.
        layer_runs: how often the run computes a layer.
    """
    if trace is None:
        return None
    return {
        "busy_us_per_layer": trace.busy_s * 1e6 / layer_runs,
        "span_us_per_layer": trace.span_s * 1e6 / layer_runs,
        "launches_per_layer": trace.launches / layer_runs,
        "kernels": [_kernel_row(kernel, layer_runs) for kernel in trace.kernels[:MAX_KERNELS]],
    }


def _kernel_row(kernel: KernelTime, layer_runs: int) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "us_per_layer": kernel.seconds * 1e6 / layer_runs,
        "launches_per_layer": kernel.launches / layer_runs,
    }


def _step_bytes(benchmark: _Benchmark, slots: int, mean_length: float) -> float:
    """Returns the bytes of weights and cache that one decode step must read."""
    platform_name = benchmark.machine["platform"]
    itemsize = benchmark.dtype.itemsize
    dense = select_platform(platform_name).is_dense(benchmark.config.weights)
    table_in_dtype = dense or platform_name != "cpu"

    weight_bytes = arithmetic.step_weight_bytes(
        benchmark.model,
        slots,
        dense_itemsize=itemsize if dense else None,
        table_itemsize=itemsize if table_in_dtype else 4,
    )
    cache_bytes = arithmetic.cache_bytes(benchmark.model, itemsize)
    return weight_bytes + slots * mean_length * cache_bytes
