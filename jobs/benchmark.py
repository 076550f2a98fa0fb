"""How fast is the engine on this machine, as shares of what the machine can do?

    python jobs/benchmark.py --model small                       # on CPU; virtual devices with
    --mesh python jobs/benchmark.py --model small --json result.json python jobs/benchmark.py
    --model grok-1-shard --slots 64,128 --prefill-length 1024    # on one GPU of 80 GB or more

Measures, in one run: the machine's own rate in a large matrix product and in reading memory;
prefill; decode at several numbers of slots. Prints a table and writes JSON. MFU: useful operations
of the chosen experts only. MBU: bytes of weights and cache that a step must read, once. "of roof"
compares with the slower of the two limits. Runs the engine alone: no Ray, no text.
"""

import dataclasses
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from actors.engine.config import EngineConfig
from actors.model import arithmetic
from actors.model.config import ModelConfig
from actors.protocol.errors import GrokBatchError
from actors.protocol.messages import ReplicaStats, Request, RowRef, token_ids
from actors.protocol.sampling import Sampling
from jobs.benchmarks.models import MODELS, random_params
from jobs.cli.parser import flag, parse

PAGE = EngineConfig(max_len=1).page_size
REPEATS = 3  # of each measurement; the median counts


@dataclass(frozen=True)
class BenchmarkConfig:
    """One run of jobs/benchmark.py."""

    model: Literal["small", "demo", "grok-1-shard"] = flag(
        "small",
        "weights are random. grok-1-shard: what one of eight devices holds of Grok-1, 39 GB as "
        "int8, on one device: "
        "all-reduces between devices are not measured",
    )
    mesh: str = flag("1x1", "DATAxMODEL; virtual devices on a machine without GPUs")
    dtype: Literal["bfloat16", "float32"] = flag("bfloat16", "activations")
    weights: Literal["auto", "int8", "dense"] = flag(
        "auto", "auto: int8 where a kernel reads it, dense elsewhere"
    )
    prefill_rows: int = flag(8, "prompts of the prefill measurement")
    prefill_length: int = flag(256, "tokens of each of them")
    slots: str = flag("8,32,128", "numbers of sequences that decode together, with commas")
    context: int = flag(64, "tokens of each prompt before decode starts")
    new_tokens: int = flag(32, "tokens that each sequence draws")
    batch_tokens: int = flag(2048, "positions of one prefill")
    block: int = flag(16, "tokens of one row of a prefill")
    decode_steps: int = flag(8, "tokens a slot draws per host call")
    json: str | None = flag(None, "file for the figures")


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark of a command line and returns its exit code."""
    try:
        config = parse(
            BenchmarkConfig,
            arguments,
            program="benchmark.py",
            description=str(__doc__).split("\n\n", maxsplit=1)[0],
        )
        data, shards = (int(part) for part in config.mesh.split("x"))
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={data * shards}"
        os.environ["XLA_FLAGS"] = flags.strip()  # before JAX starts
        figures = measure(config, (data, shards))
    except GrokBatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(figures)
    if config.json:
        Path(config.json).write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(config: BenchmarkConfig, mesh: tuple[int, int]) -> dict[str, Any]:
    """Returns all figures of one run, machine and configuration included."""
    model = MODELS[config.model]
    machine = machine_rates(config.dtype)
    make = _engine_maker(config, model, mesh)
    prefill = _prefill(config, model, make, machine)
    decode = [
        _decode(config, model, make, machine, slots) for slots in map(int, config.slots.split(","))
    ]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "config": dataclasses.asdict(config),
        "machine": machine,
        "prefill": prefill,
        "decode": decode,
        "device_peak_bytes": _device_peak_bytes(),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _device_peak_bytes() -> int | None:
    """Returns the most memory that was in use on the first device.

    None where JAX does not count it, as on CPUs.
    """
    import jax

    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else None


def machine_rates(dtype: str) -> dict[str, Any]:
    """Measures the machine's own product and memory rates with the same library: the best of several tries."""
    import jax
    import jax.numpy as jnp

    # far more than any cache holds
    n, words = (2048, 1 << 28) if jax.devices()[0].platform == "cpu" else (8192, 1 << 31)
    # float32 as well: a CPU without bfloat16 instructions is faster in it, whatever the activations
    # are
    squares = [
        jax.random.normal(jax.random.key(0), (n, n), each)
        for each in dict.fromkeys((dtype, "float32"))
    ]
    product = jax.jit(lambda a, b: jnp.dot(a, b, preferred_element_type=jnp.float32))
    data = jnp.ones((words,), jnp.uint8).view(jnp.float32)
    read = jax.jit(jnp.sum)
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "platform": jax.devices()[0].platform,
        "device": jax.devices()[0].device_kind,
        "product_flops_per_s": 2
        * n**3
        / min(_best(partial(_run_product, product, x)) for x in squares),
        "read_bytes_per_s": words / _best(lambda: read(data).block_until_ready()),
    }


def _run_product(product: Callable[..., Any], x: Any) -> None:
    product(x, x).block_until_ready()


def _best(run: Callable[[], object], tries: int = 10) -> float:
    run()
    return min(_timed(run) for _ in range(tries))


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _engine_maker(
    config: BenchmarkConfig, model: ModelConfig, mesh_shape: tuple[int, int]
) -> Callable[..., Any]:
    """Makes the weights once.

    Returns a function that makes an engine of so many slots and so long sequences over them.
    """
    import jax
    import jax.numpy as jnp

    from actors.engine.engine import Engine
    from actors.engine.steps import EngineContext
    from actors.kernels.choice import select_platform
    from actors.model import sharding

    mesh, dtype = sharding.make_mesh(*mesh_shape), jnp.dtype(config.dtype)
    device_platform = select_platform(jax.devices()[0].platform)
    params = random_params(model, mesh, dtype, dense=device_platform.is_dense(config.weights))

    def make(slots: int, max_len: int, *, reuse: bool = True) -> Any:
        sizes = EngineConfig(
            max_len=max_len,
            batch_tokens=config.batch_tokens,
            chunk=config.block,
            slots=slots,
            cache_tokens=max(slots, config.prefill_rows) * (max_len + 16),  # pages are whole
            decode_steps=config.decode_steps,
            reuse_prefixes=reuse,
        )
        return Engine(EngineContext(model, sizes, dtype, mesh), params)

    return make


def _run(engine: Any, requests: Sequence[Request]) -> ReplicaStats:
    """Runs requests to their end; returns what the counters grew by."""
    before = engine.stats()
    for request in requests:
        engine.add(request)
    while not engine.idle:
        engine.step()
    after = engine.stats()
    grown = {
        f.name: getattr(after, f.name) - getattr(before, f.name)
        for f in dataclasses.fields(ReplicaStats)
    }
    return ReplicaStats(**grown)


def _requests(model: ModelConfig, rows: int, length: int, new_tokens: int) -> list[Request]:
    import numpy as np

    ids = np.random.default_rng(rows).integers(3, model.vocab_size, (rows, length)).tolist()
    sampling = Sampling(max_tokens=new_tokens, ignore_eos=True)
    return [Request(RowRef(0, row), token_ids(prompt), sampling) for row, prompt in enumerate(ids)]


def _median(runs: list[ReplicaStats], name: str) -> float:
    return float(sorted(getattr(run, name) for run in runs)[len(runs) // 2])


def _prefill(
    config: BenchmarkConfig, model: ModelConfig, make: Callable[..., Any], machine: dict[str, Any]
) -> dict[str, Any]:
    rows, length = config.prefill_rows, config.prefill_length
    engine = make(rows, length + 2, reuse=False)
    requests = _requests(model, rows, length + 1, 1)  # the last token of a prompt is decode's
    cold = _run(engine, requests)
    seconds = _median([_run(engine, requests) for _ in range(REPEATS)], "prefill_s")
    flops = rows * length * arithmetic.token_flops(model, length / 2)
    return {
        "rows": rows,
        "length": length,
        "seconds": seconds,
        "tokens_per_s": rows * length / seconds,
        "mfu": flops / seconds / machine["product_flops_per_s"],
        "padding": 1 - cold.prefill_tokens / cold.prefill_positions,
        "programs": cold.programs,
        "first_token_cold_s": cold.busy_s,
    }


def _decode(
    config: BenchmarkConfig,
    model: ModelConfig,
    make: Callable[..., Any],
    machine: dict[str, Any],
    slots: int,
) -> dict[str, Any]:
    from actors.kernels.choice import select_platform

    # Prompts of whole pages and a token: from the second run on they lie in the cache, and all
    # slots decode from the first step.
    context = -(-config.context // PAGE) * PAGE
    engine = make(slots, context + 1 + config.new_tokens)
    requests = _requests(model, slots, context + 1, config.new_tokens)
    cold = _run(engine, requests)
    seconds = _median([_run(engine, requests) for _ in range(REPEATS)], "decode_s")
    itemsize = 2 if config.dtype == "bfloat16" else 4
    dense = select_platform(machine["platform"]).is_dense(config.weights)
    length = context + 1 + config.new_tokens / 2
    weights = arithmetic.step_weight_bytes(
        model,
        slots,
        dense_itemsize=itemsize if dense else None,
        table_itemsize=itemsize if dense or machine["platform"] != "cpu" else 4,
    )
    step_bytes = weights + slots * length * arithmetic.cache_bytes(model, itemsize)
    step_flops = slots * (
        arithmetic.token_flops(model, length) + arithmetic.projection_flops(model)
    )
    step_s = seconds / config.new_tokens
    memory_s, product_s = (
        step_bytes / machine["read_bytes_per_s"],
        step_flops / machine["product_flops_per_s"],
    )
    return {
        "slots": slots,
        "seconds_per_step": step_s,
        "tokens_per_s": slots / step_s,
        "mbu": memory_s / step_s,
        "mfu": product_s / step_s,
        "of_roof": max(memory_s, product_s) / step_s,
        "programs": cold.programs,
    }


def show(figures: dict[str, Any]) -> None:
    """Prints the figures as a table."""
    machine, prefill = figures["machine"], figures["prefill"]
    product, memory = machine["product_flops_per_s"] / 1e9, machine["read_bytes_per_s"] / 1e9
    print(
        f"machine  {machine['device']}, {machine['cores']} cores: product {product:,.0f} GFLOP/s, "
        f"reading {memory:,.1f} GB/s"
    )
    table = Table(
        title=f"model {figures['config']['model']}, {figures['config']['dtype']}",
        title_justify="left",
    )
    for name in (
        "measured",
        "tokens/s",
        "MFU",
        "MBU",
        "of roof",
        "padding",
        "programs",
        "first token, cold",
    ):
        table.add_column(name, justify="right")
    table.add_row(
        f"prefill {prefill['rows']}x{prefill['length']}",
        f"{prefill['tokens_per_s']:,.0f}",
        f"{prefill['mfu']:.1%}",
        "",
        f"{prefill['mfu']:.1%}",
        f"{prefill['padding']:.1%}",
        str(prefill["programs"]),
        f"{prefill['first_token_cold_s']:.1f} s",
    )
    for row in figures["decode"]:
        shares = (f"{row[name]:.1%}" for name in ("mfu", "mbu", "of_roof"))
        table.add_row(
            f"decode, {row['slots']} slots",
            f"{row['tokens_per_s']:,.0f}",
            *shares,
            "",
            str(row["programs"]),
            "",
        )
    Console().print(table)
    print(f"peak memory of the process {figures['peak_memory_bytes'] / 1e9:.2f} GB")
    if figures["device_peak_bytes"] is not None:
        print(f"peak memory of the device {figures['device_peak_bytes'] / 1e9:.2f} GB")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
