"""Compares checkpoint layouts of safetensors, TensorStore and Orbax, for checkpoint-loading.md.

    PYTHONPATH=. python docs/benchmarks/compare_layouts.py write FOLDER LAYERS
    PYTHONPATH=. python docs/benchmarks/compare_layouts.py load FOLDER LAYERS LAYOUT 1x1|1x8 [s3://…]

LAYOUT is safetensors, tensorstore or orbax.

`write` makes all of them below FOLDER; `load` loads one in a fresh process. Needs, beside the
project's packages, tensorstore and orbax-checkpoint, which the project does not use. For S3, copy
FOLDER there first and set AWS_ENDPOINT_URL.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

command, folder, layers, *rest = sys.argv[1:]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh, NamedSharding  # noqa: E402

from actors.kernels.quantized import QuantizedWeight  # noqa: E402
from actors.model.config import parameter_shapes  # noqa: E402
from actors.model.sharding import make_mesh, parameter_specs, parse_mesh  # noqa: E402
from actors.weights import checkpoint  # noqa: E402
from actors.weights.pickle_reader import BFLOAT16  # noqa: E402
from jobs.benchmarks.checkpoint import (  # noqa: E402
    drop_from_page_cache,
    synthetic_config,
    synthetic_parameters,
)
from jobs.weights.convert import convert  # noqa: E402

model, root = synthetic_config(int(layers)), Path(folder).absolute()


def memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024 / 1e9


def leaves(tree: object) -> list[tuple[str, jax.Array]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator=".").replace("/", "."), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def expected(mesh: Mesh) -> dict[str, dict[str, object]]:
    specs, tree = parameter_specs(model), {}
    for tensor in parameter_shapes(model):
        spec = specs[tensor.module][tensor.name]
        if tensor.scales_shape is None:
            made = jax.ShapeDtypeStruct(
                tensor.shape, np.float32, sharding=NamedSharding(mesh, spec)
            )
        else:
            weight = jax.ShapeDtypeStruct(
                tensor.shape, np.int8, sharding=NamedSharding(mesh, spec.weight)
            )
            made = QuantizedWeight(
                weight,
                jax.ShapeDtypeStruct(
                    tensor.scales_shape, BFLOAT16, sharding=NamedSharding(mesh, spec.scales)
                ),
            )
        tree.setdefault(tensor.module, {})[tensor.name] = made
    return tree


def write() -> None:
    import orbax.checkpoint as ocp
    import tensorstore as ts

    checkpoint.write(synthetic_parameters(model), root / "ckpt-0")
    convert(str(root / "ckpt-0"), str(root / "safetensors"), model)
    params = checkpoint.load(root / "ckpt-0", model, make_mesh(1, 8))
    for name, array in leaves(params):
        chunk = list(array.addressable_shards[0].data.shape)
        metadata = {
            "shape": array.shape,
            "data_type": array.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        }
        store = {"driver": "file", "path": f"{root / 'tensorstore' / name}/"}
        ts.open(
            {"driver": "zarr3", "kvstore": store, "metadata": metadata, "create": True}
        ).result().write(np.asarray(array)).result()
    saver = ocp.StandardCheckpointer()
    saver.save(root / "orbax", params)
    saver.wait_until_finished()


def load(kind: str, mesh_text: str, s3: str | None = None) -> None:
    mesh = make_mesh(*parse_mesh(mesh_text))
    wanted = expected(mesh)
    total = parameter_shapes(model).stored_bytes
    if s3 is None:
        for each in (root / kind, *(root / kind).rglob("*")):
            if each.is_dir() and all(path.is_file() for path in each.iterdir()):
                drop_from_page_cache(each)
    before, began, cpu_s = memory("VmRSS"), time.perf_counter(), time.process_time()
    if kind == "safetensors":
        params = checkpoint.load(f"{s3}/safetensors" if s3 else root / kind, model, mesh)
    elif kind == "tensorstore":
        params = _tensorstore(wanted, s3)
    else:
        import orbax.checkpoint as ocp

        params = ocp.StandardCheckpointer().restore(root / "orbax", wanted)
    jax.block_until_ready(params)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    peak = memory("VmHWM") - before - total / 1e9
    rate = total / seconds / 1e9
    print(
        json.dumps(
            {
                "kind": kind,
                "mesh": mesh_text,
                "GB/s": round(rate, 3),
                "cpu_s": round(cpu_s, 2),
                "beyond_GB": round(peak, 2),
            }
        )
    )


def _tensorstore(wanted: object, s3: str | None) -> object:
    import tensorstore as ts

    def one(named: tuple[str, jax.ShapeDtypeStruct]) -> jax.Array:
        name, shape = named
        store = {"driver": "file", "path": f"{root / 'tensorstore' / name}/"}
        if s3 is not None:
            bucket, _, prefix = s3.removeprefix("s3://").partition("/")
            store = {
                "driver": "s3",
                "bucket": bucket,
                "path": f"{prefix}/tensorstore/{name}/".lstrip("/"),
                "aws_region": "us-east-1",
            }
            store["endpoint"] = os.environ["AWS_ENDPOINT_URL"]
        source = ts.open({"driver": "zarr3", "kvstore": store}).result()
        sharding = shape.sharding
        assert isinstance(sharding, NamedSharding)
        parts = [
            jax.device_put(source[index].read().result(), device)
            for device, index in sharding.addressable_devices_indices_map(shape.shape).items()
        ]
        return jax.make_array_from_single_device_arrays(shape.shape, sharding, parts)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, leaves(wanted)))


if command == "write":
    write()
else:
    load(*rest)
