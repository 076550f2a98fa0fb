"""How fast weights load, beside what the disk itself reads → a table.

Makes its own checkpoint in xAI's format and deletes it.

    python jobs/benchmark_checkpoint.py --folder FOLDER [--layers 8] [--rounds 3] [--s3
    s3://bucket/prefix]

Every round reads the same files once from a cold page cache with one buffer (the disk's own
sequential rate), then loads each layout onto each mesh in a fresh process, cold too. A row is the
median of its rounds; "of the disk" is the median of the ratios within a round, since a shared
machine is not as fast in every round. "Host beyond arrays" is the peak of the process's memory less
what it had before and less the arrays, which on CPU devices lie in host memory as well.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from actors.model.config import SMALL, ModelConfig, parameter_shapes
from actors.weights.pickle_reader import BFLOAT16, HostTensor, Int8Tensor
from jobs.cli.command import run_command
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import flag, parse
from pipeline.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
_BUFFER_BYTES = 8 * 2**20
_CHILD = "import sys; from jobs.benchmark_checkpoint import measure; measure(*sys.argv[1:])"


@dataclass(frozen=True)
class BenchmarkConfig:
    """One run of jobs/benchmark_checkpoint.py.

    Raises:
        ConfigError: flags are missing or out of range.
    """

    folder: str | None = flag(
        None, "local folder to make the checkpoints in, on the disk to be measured; required"
    )
    layers: int = flag(8, "layers of the synthetic model: 0.54 GB each, and 0.27 GB of embedding")
    rounds: int = flag(3, "times that everything is measured")
    meshes: tuple[str, ...] = flag(
        (), "mesh to load onto, DATAxMODEL virtual CPU devices; may be repeated; 1x1 and 1x8"
    )
    s3: str | None = flag(
        None, "s3:// folder that exists: both layouts are copied there and loaded from there too"
    )

    def __post_init__(self) -> None:
        if not self.folder:
            raise ConfigError("--folder is missing; see --help")
        if self.layers < 1 or self.rounds < 1:
            raise ConfigError(
                f"--layers and --rounds: expected at least 1, got {self.layers} and {self.rounds}"
            )


def synthetic_config(layers: int) -> ModelConfig:
    """Returns a model of Grok-1's proportions whose layers take 0.54 GB each."""
    return replace(
        SMALL, vocab_size=32768, emb_size=2048, key_size=128, num_q_heads=16, num_layers=layers
    )


def synthetic_parameters(config: ModelConfig) -> Iterator[tuple[str, HostTensor]]:
    """Yields tensors of random bytes, as fast as they can be drawn: for reading, not for computing."""
    rng = np.random.default_rng(0)
    for tensor in parameter_shapes(config):
        if tensor.scales_shape is None:
            yield tensor.path, rng.random(tensor.shape, dtype=np.float32)
        else:
            weight = np.frombuffer(rng.bytes(int(np.prod(tensor.shape))), np.int8).reshape(
                tensor.shape
            )
            yield (
                tensor.path,
                Int8Tensor(
                    weight, (rng.random(tensor.scales_shape, dtype=np.float32) + 1).astype(BFLOAT16)
                ),
            )


def measure(url: str, mesh: str, config: str) -> None:
    """Loads weights in this process and prints what it took, as JSON.

    The environment says how many devices there are.
    """
    import jax

    from actors.model.sharding import make_mesh, parse_mesh
    from actors.weights import checkpoint

    model, devices = ModelConfig(**json.loads(config)), make_mesh(*parse_mesh(mesh))
    jax.block_until_ready(jax.device_put(np.zeros(8), devices.devices.flat[0]))
    before = _memory("VmRSS")
    began, cpu_s = time.perf_counter(), time.process_time()
    params = checkpoint.load(url, model, devices)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    arrays = sum(
        shard.data.nbytes for leaf in jax.tree.leaves(params) for shard in leaf.addressable_shards
    )
    beyond = _memory("VmHWM") - before - arrays
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "arrays": arrays, "beyond": beyond}))


def _memory(name: str) -> int:
    line = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)
    )
    return int(line.split()[1]) * 1024


def _load(url: str, mesh: str, config: ModelConfig) -> dict[str, Any]:
    devices = device_count(mesh)
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", _CHILD, url, mesh, json.dumps(asdict(config))]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def device_count(mesh: str) -> int:
    """Returns how many devices DATAxMODEL is. Raises ConfigError."""
    data, _, model = mesh.partition("x")
    if not (data.isdigit() and model.isdigit()):
        raise ConfigError(f"--meshes: expected DATAxMODEL, e.g. 1x8, got {mesh!r}")
    return int(data) * int(model)


def forget(folder: Path) -> None:
    """Takes a folder's files out of the page cache; needs no privilege."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def sequential_rate(folder: Path) -> float:
    """Returns bytes per second of reading all files of a folder one after the other into one buffer, from a cold page cache."""
    forget(folder)
    buffer, count = bytearray(_BUFFER_BYTES), 0
    began = time.perf_counter()
    for path in sorted(folder.iterdir()):
        with path.open("rb", buffering=0) as file:
            while got := file.readinto(buffer):
                count += got
    return count / (time.perf_counter() - began)


def _run(config: BenchmarkConfig) -> int:
    from actors.weights import checkpoint
    from jobs.weights.convert import convert

    folder, model = (
        Path(str(config.folder)) / "benchmark-checkpoint",
        synthetic_config(config.layers),
    )
    source, target = folder / "ckpt-0", folder / "converted"
    folder.mkdir(parents=True)  # an existing one is somebody's
    try:
        checkpoint.write(synthetic_parameters(model), source)
        began = time.perf_counter()
        convert(str(source), str(target), model)
        print(
            f"{parameter_shapes(model).stored_bytes / 1e9:.2f} GB, converted and verified in "
            f"{time.perf_counter() - began:.1f} s"
        )
        os.sync()
        _report(_local_rows(config, source, target, model))
        if config.s3:
            _report(_s3_rows(config, source, target, model))
    finally:
        shutil.rmtree(folder)
    return ExitCode.OK


# layout, mesh, what a load took, the disk's rate in the same round
Row = tuple[str, str, dict[str, Any], float | None]


def _local_rows(
    config: BenchmarkConfig, source: Path, target: Path, model: ModelConfig
) -> Iterator[Row]:
    for _ in range(config.rounds):
        for mesh in config.meshes or ("1x1", "1x8"):
            for name, folder in (("ckpt-0", source), ("converted", target)):
                disk = sequential_rate(folder)
                forget(folder)
                yield name, mesh, _load(str(folder), mesh, model), disk


def _s3_rows(
    config: BenchmarkConfig, source: Path, target: Path, model: ModelConfig
) -> Iterator[Row]:
    from pipeline import storage

    for folder in (source, target):
        for path in sorted(folder.iterdir()):
            storage.overwrite(
                storage.join(str(config.s3), folder.name, path.name), path.read_bytes()
            )
    for _ in range(config.rounds):
        for mesh in config.meshes or ("1x1", "1x8"):
            for folder in (source, target):
                yield (
                    f"{folder.name} on S3",
                    mesh,
                    _load(storage.join(str(config.s3), folder.name), mesh, model),
                    None,
                )


def _report(rows: Iterator[Row]) -> None:
    found: dict[tuple[str, str], list[tuple[dict[str, Any], float | None]]] = {}
    for name, mesh, took, disk in rows:
        found.setdefault((name, mesh), []).append((took, disk))
        print(
            f"  {name} {mesh}: {took['arrays'] / took['seconds'] / 1e9:.2f} GB/s",
            file=sys.stderr,
            flush=True,
        )
    print(
        "| layout | mesh | load, GB/s | disk, GB/s | of the disk (all rounds) | CPU s per GB | "
        "host beyond arrays, GB |"
    )
    print("|---|---|---|---|---|---|---|")
    for (name, mesh), rounds in found.items():
        rates = [took["arrays"] / took["seconds"] for took, _ in rounds]
        disks = [disk for _, disk in rounds if disk is not None]
        ratios = [rate / disk for rate, disk in zip(rates, disks, strict=False)]
        disk_text = f"{statistics.median(disks) / 1e9:.2f}" if disks else "–"
        ratio_text = (
            f"{statistics.median(ratios):.0%} ({', '.join(f'{ratio:.0%}' for ratio in ratios)})"
            if ratios
            else "–"
        )
        cpu = statistics.median(took["cpu_s"] / took["arrays"] * 1e9 for took, _ in rounds)
        beyond = max(took["beyond"] for took, _ in rounds) / 1e9
        print(
            f"| {name} | {mesh} | {statistics.median(rates) / 1e9:.2f} | {disk_text} | "
            f"{ratio_text} | {cpu:.2f} | {beyond:.2f} |"
        )


def main(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code."""
    description = str(__doc__)
    return run_command(
        lambda: _run(
            parse(
                BenchmarkConfig,
                arguments,
                program="benchmark_checkpoint.py",
                description=description,
            )
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
