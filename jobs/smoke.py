"""Does this machine, or this image, run a model at all? Versions, devices, memory, the mesh, and an answer of the demo model.

    python jobs/smoke.py                     # in a minute: everything but Ray
    python jobs/smoke.py --gpus 8            # and fails if there are fewer GPUs
    python jobs/smoke.py --ray               # also through the main job, on a local Ray

Exit code 0: all of it works; 1: something does not, and the last lines say what. Needs no network
and no weights but the demo's. `jobs/check_gpu.py` is the next step on GPUs: it compares their
kernels with plain XLA at Grok-1's sizes.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

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
DEMO_MESHES = (8, 4, 2, 1)  # over so many devices the demo model can be split
PROMPT, ANSWER, MOST_TOKENS = "2 + 3 =", " 5", 4
GB = 1e9


class SmokeError(Exception):
    """Something does not work; the message says what, and what to do."""


def main(arguments: Sequence[str]) -> int:
    """Runs the checks of a command line and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="smoke.py", description=str(__doc__).split("\n\n", maxsplit=1)[0]
    )
    parser.add_argument(
        "--gpus",
        type=int,
        default=0,
        help="how many GPUs there have to be; 0, the default: any number, also none",
    )
    parser.add_argument(
        "--cpu-devices",
        type=int,
        default=1,
        help="virtual devices where there is no GPU (default 1)",
    )
    parser.add_argument(
        "--ray", action="store_true", help="also run the main job on a local Ray: another minute"
    )
    asked = parser.parse_args(arguments)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={asked.cpu_devices}"
    os.environ["XLA_FLAGS"] = flags.strip()  # before JAX starts
    checks: list[tuple[str, Callable[[], Iterator[str]]]] = [
        ("versions", versions), ("devices", lambda: devices(asked.gpus)), ("mesh", mesh), ("answer", answer),
    ]  # fmt: skip
    if asked.ray:
        checks.append(("through Ray", through_ray))
    for name, check in checks:
        began = time.perf_counter()
        try:
            for line in check():
                print(f"{name:<12} {line}", flush=True)
        # whatever it is, this is the place to say so and to end
        except Exception as error:  # noqa: BLE001
            print(f"{name:<12} FAILED: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
        print(f"{name:<12} ok, {time.perf_counter() - began:.1f} s", flush=True)
    return 0


def versions() -> Iterator[str]:
    """Yields what is installed, and the driver."""
    yield f"python {platform.python_version()} on {platform.platform()}"
    for name in PACKAGES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue  # packages for GPUs are not there on a machine without
    driver = Path("/proc/driver/nvidia/version")
    yield driver.read_text().splitlines()[0] if driver.exists() else "no NVIDIA driver"


def devices(least_gpus: int) -> Iterator[str]:
    """Yields the devices that JAX sees, with their memory.

    Raises:
        SmokeError: there are fewer GPUs than there have to be.
    """
    import jax

    found = jax.devices()
    for device in found:
        yield f"{device.id}: {device.device_kind}{_memory(device)}"
    gpus = sum(1 for device in found if device.platform == "gpu")
    if gpus < least_gpus:
        raise SmokeError(
            f"expected {least_gpus} GPUs, JAX sees {gpus}; look at nvidia-smi, "
            "NVIDIA_VISIBLE_DEVICES and CUDA_VISIBLE_DEVICES, "
            "and whether the container was started with GPUs and requirements-cuda12.lock is what "
            "is installed"
        )


def _memory(device: Any) -> str:
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit")
    return (
        f", {limit / GB:.1f} GB for JAX, {stats.get('bytes_in_use', 0) / GB:.1f} in use"
        if limit
        else ""
    )


def mesh() -> Iterator[str]:
    """Yields what an all-reduce over all devices gives: the collective that every layer ends with.

    Raises:
        SmokeError: it gives something else.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    count = jax.device_count()
    over_all = jax.make_mesh((count,), ("model",))
    parts = jax.device_put(
        jnp.arange(8 * count, dtype=jnp.float32), NamedSharding(over_all, PartitionSpec("model"))
    )
    summed = float(jax.jit(jnp.sum, out_shardings=NamedSharding(over_all, PartitionSpec()))(parts))
    expected = sum(range(8 * count))
    if summed != expected:
        raise SmokeError(
            f"the sum over {count} devices is {summed}, expected {expected}: their links or NCCL "
            "are broken"
        )
    yield f"sum over {count} devices is right"


def answer() -> Iterator[str]:
    """Yields the demo model's answer to a sum, token by token from one replica, without Ray.

    Raises:
        SmokeError: it is not the right one.
    """
    import jax

    from actors.protocol.messages import Batch, Request, RowRef, token_ids
    from actors.protocol.sampling import Sampling
    from actors.replica import Replica
    from jobs.run.config import ScoreConfig
    from jobs.run.plan import make_plan

    shards = next(size for size in DEMO_MESHES if size <= jax.device_count())
    prompts = str(ROOT / "jobs" / "demo" / "prompts.parquet")
    plan = make_plan(
        ScoreConfig(
            input=prompts,
            output="unused",
            model="demo",
            max_tokens=MOST_TOKENS,
            max_len=64,
            mesh=f"1x{shards}",
        )
    )
    if plan.tokenizer is None:
        raise SmokeError("the demo's tokenizer is not there: jobs/demo/tokenizer.model")
    replica = Replica(plan.replica_spec(), "smoke")
    ids = token_ids(plan.tokenizer.encode([PROMPT])[0])
    [completion] = replica.run(
        Batch((Request(RowRef(0, 0), ids, Sampling(max_tokens=MOST_TOKENS)),))
    ).completions
    if completion.error_code is not None:
        raise SmokeError(f"{completion.error_code}: {completion.error_message}")
    text = plan.tokenizer.text(completion.token_ids, completion.text_bytes)
    if text != ANSWER:
        raise SmokeError(
            f"{PROMPT!r} is continued with {text!r}, expected {ANSWER!r}: the arithmetic of this "
            "machine is wrong"
        )
    info = replica.info()
    yield f"{PROMPT!r} -> {text!r} on a mesh {info.mesh} of {info.devices[0]}, {info.cache_tokens:,} tokens of cache"


def through_ray() -> Iterator[str]:
    """Yields how the main job ends, on two prompts and a Ray of its own.

    Raises:
        SmokeError: it does not end with 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "jobs/score_dataset.py",
            "--model",
            "demo",
            "-i",
            "jobs/demo/prompts.parquet",
            "-o",
            folder,
        ]
        command += ["--max-tokens", "1", "--max-len", "64", "--limit", "2"]
        environment = os.environ | {"RAY_ADDRESS": "local"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        last = " ".join((done.stderr or done.stdout).split()[-60:])
        raise SmokeError(f"the main job ended with {done.returncode}: {last}")
    yield "the main job completed two prompts"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
