"""Checks that a machine or an image runs a model: versions, devices, mesh, an answer, Ray.

Every check is a generator: it yields lines to print and raises when something does not work.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = "jobs/demo/prompts.parquet"
PACKAGES = (
    "jax",
    "jaxlib",
    "jax-cuda12-plugin",
    "nvidia-cuda-runtime-cu12",
    "nvidia-nccl-cu12",
    "ray",
    "dm-haiku",
    "pyarrow",
)
DEMO_MESHES = (8, 4, 2, 1)  # numbers of devices that the demo model can be split over
PROMPT = "2 + 3 ="
ANSWER = " 5"
MAX_TOKENS = 4
VALUES_PER_DEVICE = 8
LAST_WORDS = 60  # of the output of a job that failed


Check = Callable[[], Iterable[str]]


class SmokeError(Exception):
    """A check failed; the message states the problem and the remedy."""


def run_checks(checks: Mapping[str, Check]) -> bool:
    """Runs checks in order up to the first that fails; returns whether all pass."""
    return all(_passes(name, check) for name, check in checks.items())


def _passes(name: str, check: Check) -> bool:
    """Prints the lines of a check and whether it passes."""
    started_s = time.perf_counter()
    try:
        for line in check():
            print(f"{name:<12} {line}", flush=True)
    # Any error means that the machine does not work, and the message must name the check.
    except Exception as error:  # noqa: BLE001
        print(f"{name:<12} FAILED: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    print(f"{name:<12} ok, {time.perf_counter() - started_s:.1f} s", flush=True)
    return True


def versions() -> Iterator[str]:
    """Yields versions of packages and of the driver."""
    yield f"python {platform.python_version()} on {platform.platform()}"
    for name in PACKAGES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue  # packages for GPUs are absent on a machine without
    driver = Path("/proc/driver/nvidia/version")
    if driver.exists():
        yield driver.read_text().splitlines()[0]
    else:
        yield "no NVIDIA driver"


def devices(min_gpus: int) -> Iterator[str]:
    """Yields the devices of JAX with their memory.

    Raises:
        SmokeError: there are fewer GPUs than `min_gpus`.
    """
    import jax

    gpus = 0
    for device in jax.devices():
        yield f"{device.id}: {device.device_kind}{_memory_text(device)}"
        if device.platform == "gpu":
            gpus += 1
    if gpus < min_gpus:
        raise SmokeError(
            f"expected {min_gpus} GPUs, JAX sees {gpus}; look at nvidia-smi, "
            "NVIDIA_VISIBLE_DEVICES and CUDA_VISIBLE_DEVICES, and whether the container was "
            "started with GPUs and requirements-cuda12.lock is what is installed"
        )


def _memory_text(device: Any) -> str:
    stats = device.memory_stats() or {}
    if not stats.get("bytes_limit"):
        return ""
    limit_gb = stats["bytes_limit"] / 1e9
    used_gb = stats.get("bytes_in_use", 0) / 1e9
    return f", {limit_gb:.1f} GB for JAX, {used_gb:.1f} in use"


def mesh() -> Iterator[str]:
    """Yields the result of an all-reduce over all devices, the collective that ends every layer.

    Raises:
        SmokeError: the sum is wrong.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    count = jax.device_count()
    devices = jax.make_mesh((count,), ("model",))
    split = NamedSharding(devices, PartitionSpec("model"))
    replicated = NamedSharding(devices, PartitionSpec())

    values = jnp.arange(VALUES_PER_DEVICE * count, dtype=jnp.float32)
    total = float(jax.jit(jnp.sum, out_shardings=replicated)(jax.device_put(values, split)))
    expected = sum(range(VALUES_PER_DEVICE * count))
    if total != expected:
        raise SmokeError(
            f"the sum over {count} devices is {total}, expected {expected}: their links or NCCL "
            "are broken"
        )
    yield f"sum over {count} devices is right"


def answer() -> Iterator[str]:
    """Yields the demo model's answer to a sum, from one replica without Ray.

    Raises:
        SmokeError: the answer is wrong, or a file of the demo is absent.
    """
    import jax

    from actors.protocol.messages import Batch, Request, RowRef, token_ids
    from actors.protocol.sampling import Sampling
    from actors.replica import Replica
    from jobs.run.config import ScoreConfig
    from jobs.run.plan import make_plan

    shards = max(size for size in DEMO_MESHES if size <= jax.device_count())
    config = ScoreConfig(
        input=str(ROOT / PROMPTS),
        output="unused",
        model="demo",
        max_tokens=MAX_TOKENS,
        max_len=64,
        mesh=f"1x{shards}",
    )
    plan = make_plan(config)
    tokenizer = plan.tokenizer
    if tokenizer is None:
        raise SmokeError("the demo's tokenizer is not there: jobs/demo/tokenizer.model")

    replica = Replica(plan.replica_spec(), "smoke")
    ids = token_ids(tokenizer.encode([PROMPT])[0])
    request = Request(RowRef(0, 0), ids, Sampling(max_tokens=MAX_TOKENS))
    completion = replica.run(Batch((request,))).completions[0]
    if completion.error_code is not None:
        raise SmokeError(f"{completion.error_code}: {completion.error_message}")

    text = tokenizer.text(completion.token_ids, completion.text_bytes)
    if text != ANSWER:
        raise SmokeError(
            f"{PROMPT!r} is continued with {text!r}, expected {ANSWER!r}: the arithmetic of this "
            "machine is wrong"
        )
    info = replica.info()
    yield (
        f"{PROMPT!r} -> {text!r} on a mesh {info.mesh} of {info.devices[0]}, "
        f"{info.cache_tokens:,} tokens of cache"
    )


def through_ray() -> Iterator[str]:
    """Yields how the main job ends, on two prompts and a Ray of its own.

    Raises:
        SmokeError: its exit code is not 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "jobs/score_dataset.py", "--model", "demo"]
        command += ["-i", PROMPTS, "-o", folder]
        command += ["--max-tokens", "1", "--max-len", "64", "--limit", "2"]
        environment = os.environ | {"RAY_ADDRESS": "local"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        words = (done.stderr or done.stdout).split()
        message = " ".join(words[-LAST_WORDS:])
        raise SmokeError(f"the main job ended with {done.returncode}: {message}")
    yield "the main job completed two prompts"
