"""Measures how fast weights load, compared with the sequential rate of the disk.

Every round reads the same files once from a cold page cache with one buffer, which is the disk's
own sequential rate, then loads each layout onto each mesh in a new process, cold too.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.model.config import SMALL, ModelConfig, parameter_shapes
from actors.weights import checkpoint
from actors.weights.pickle_reader import BFLOAT16, HostTensor, Int8Tensor
from jobs.benchmarks.checkpoint_table import Load, print_table
from jobs.cli.flag_checks import read_mesh, require_flags
from jobs.cli.parser import flag
from jobs.weights.convert import convert
from pipeline import storage
from pipeline.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
FOLDER_NAME = "benchmark-checkpoint"
DEFAULT_MESHES = ("1x1", "1x8")
BUFFER_BYTES = 8 * 2**20
CHILD = (
    "import sys; from jobs.benchmarks.checkpoint import measure_load; measure_load(*sys.argv[1:])"
)

MakeModel = Callable[[int], ModelConfig]


@dataclass(frozen=True)
class CheckpointBenchmarkConfig:
    """Flags of jobs/benchmark_checkpoint.py.

    Raises:
        ConfigError: a flag is missing or out of range.
    """

    folder: str | None = flag(
        None, "local folder to write the checkpoints in, on the disk to be measured; required"
    )
    layers: int = flag(8, "layers of the synthetic model: 0.54 GB each, and 0.27 GB of embedding")
    rounds: int = flag(3, "times that everything is measured")
    meshes: tuple[str, ...] = flag(
        (), "mesh to load onto, DATAxMODEL virtual CPU devices; repeatable; default 1x1 and 1x8"
    )
    s3: str | None = flag(
        None, "s3:// folder that exists: both layouts are copied there and loaded from there too"
    )

    def __post_init__(self) -> None:
        require_flags(self, ["folder"])
        if self.layers < 1 or self.rounds < 1:
            raise ConfigError(
                f"--layers and --rounds: expected at least 1, got {self.layers} and {self.rounds}"
            )

    def mesh_names(self) -> tuple[str, ...]:
        """Returns the meshes to load onto."""
        return self.meshes or DEFAULT_MESHES


def synthetic_config(layers: int) -> ModelConfig:
    """Returns a model of Grok-1's proportions whose layers take 0.54 GB each."""
    return replace(
        SMALL, vocab_size=32768, emb_size=2048, key_size=128, num_q_heads=16, num_layers=layers
    )


def synthetic_parameters(config: ModelConfig) -> Iterator[tuple[str, HostTensor]]:
    """Yields (path, tensor) with random bytes, for reading and not for computing."""
    generator = np.random.default_rng(0)
    for tensor in parameter_shapes(config):
        if tensor.scales_shape is None:
            yield tensor.path, generator.random(tensor.shape, dtype=np.float32)
            continue

        size = int(np.prod(tensor.shape))
        weight = np.frombuffer(generator.bytes(size), np.int8).reshape(tensor.shape)
        scales = generator.random(tensor.scales_shape, dtype=np.float32) + 1
        yield tensor.path, Int8Tensor(weight, scales.astype(BFLOAT16))


def run_benchmark(
    config: CheckpointBenchmarkConfig, make_model: MakeModel = synthetic_config
) -> None:
    """Writes a checkpoint in both layouts, measures, prints the tables and deletes the files.

    Raises:
        ConfigError: a mesh has another form than DATAxMODEL.
    """
    folder = Path(str(config.folder)) / FOLDER_NAME
    model = make_model(config.layers)
    folders = {"ckpt-0": folder / "ckpt-0", "converted": folder / "converted"}

    folder.mkdir(parents=True)  # fails where it exists: it would be deleted at the end
    try:
        checkpoint.write(synthetic_parameters(model), folders["ckpt-0"])
        started = time.perf_counter()
        convert(str(folders["ckpt-0"]), str(folders["converted"]), model)
        seconds = time.perf_counter() - started

        size_gb = parameter_shapes(model).stored_bytes / 1e9
        print(f"{size_gb:.2f} GB, converted and verified in {seconds:.1f} s")
        os.sync()
        print_table(_load_from_disk(config, folders, model))
        if config.s3:
            urls = _copy_to_s3(config.s3, folders)
            print_table(_load_from_s3(config, urls, model))
    finally:
        shutil.rmtree(folder)


def _load_from_disk(
    config: CheckpointBenchmarkConfig, folders: dict[str, Path], model: ModelConfig
) -> Iterator[Load]:
    for _ in range(config.rounds):
        for mesh in config.mesh_names():
            for layout, folder in folders.items():
                disk_bytes_per_s = sequential_rate(folder)
                drop_from_page_cache(folder)
                figures = _load_in_child(str(folder), mesh, model)
                yield Load(layout, mesh, figures, disk_bytes_per_s)


def _copy_to_s3(url: str, folders: dict[str, Path]) -> dict[str, str]:
    """Copies both layouts below an S3 folder; returns {layout: URL}."""
    urls: dict[str, str] = {}
    for layout, folder in folders.items():
        urls[layout] = storage.join(url, folder.name)
        for path in sorted(folder.iterdir()):
            storage.overwrite(storage.join(urls[layout], path.name), path.read_bytes())
    return urls


def _load_from_s3(
    config: CheckpointBenchmarkConfig, urls: dict[str, str], model: ModelConfig
) -> Iterator[Load]:
    for _ in range(config.rounds):
        for mesh in config.mesh_names():
            for layout, url in urls.items():
                yield Load(f"{layout} on S3", mesh, _load_in_child(url, mesh, model), None)


def sequential_rate(folder: Path) -> float:
    """Returns the bytes per second of reading a folder's files in order, from a cold page cache."""
    drop_from_page_cache(folder)
    buffer = bytearray(BUFFER_BYTES)
    total_bytes = 0

    started = time.perf_counter()
    for path in sorted(folder.iterdir()):
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total_bytes += count
    return total_bytes / (time.perf_counter() - started)


def drop_from_page_cache(folder: Path) -> None:
    """Removes a folder's files from the page cache; needs no privilege."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _load_in_child(url: str, mesh: str, model: ModelConfig) -> dict[str, Any]:
    """Loads weights in a new process; returns the figures of `measure_load`."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={device_count(mesh)}",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", CHILD, url, mesh, json.dumps(asdict(model))]
    process = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    last_line = process.stdout.splitlines()[-1]
    return dict(json.loads(last_line))


def device_count(mesh: str) -> int:
    """Returns the number of devices of DATAxMODEL.

    Raises:
        ConfigError: the text has another form.
    """
    return math.prod(read_mesh(mesh, "meshes"))


def measure_load(url: str, mesh: str, model_json: str) -> None:
    """Loads weights in this process and prints time and memory as JSON.

    `beyond` is the peak of the process's memory less what it had before and less the arrays, which
    on CPU devices lie in host memory as well. XLA_FLAGS sets the number of devices.
    """
    import jax

    from actors.model.sharding import make_mesh, parse_mesh

    model = ModelConfig(**json.loads(model_json))
    devices = make_mesh(*parse_mesh(mesh))
    # Excludes the start of JAX from the measurement.
    jax.block_until_ready(jax.device_put(np.zeros(8), devices.devices.flat[0]))

    before_bytes = _process_memory("VmRSS")
    started = time.perf_counter()
    started_cpu = time.process_time()
    params = checkpoint.load(url, model, devices)
    seconds = time.perf_counter() - started
    cpu_s = time.process_time() - started_cpu

    array_bytes = _bytes_on_devices(jax.tree.leaves(params))
    figures = {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "arrays": array_bytes,
        "beyond": _process_memory("VmHWM") - before_bytes - array_bytes,
    }
    print(json.dumps(figures))


def _bytes_on_devices(arrays: Iterable[Any]) -> int:
    size = 0
    for array in arrays:
        for shard in array.addressable_shards:
            size += shard.data.nbytes
    return size


def _process_memory(name: str) -> int:
    """Returns a value of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no line {name}")
