"""Loads weights onto a mesh and writes them: xAI's folder `ckpt-0`, or the safetensors layout.

Tensors are read one after the other, the next ones while the last is on its way to the devices;
each device receives only its slice, and the host holds a few tensors at most. Nothing in a file is
ever executed.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice, starmap
from os import PathLike, fspath
from typing import Any

import fsspec
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from actors.kernels.quantized import LoadedWeight, QuantizedWeight
from actors.model.config import ModelConfig, TensorSpec, parameter_shapes
from actors.model.sharding import RULES, check_divisible, parameter_specs, sharded_groups
from actors.protocol.errors import ModelError
from actors.weights.pickle_reader import HostTensor, Int8Tensor
from actors.weights.pickle_writer import pickle_tensor
from actors.weights.random_weights import quantize, random_parameters
from actors.weights.safetensors_layout import SUFFIX, SafetensorsLayout
from actors.weights.weight_files import MANIFEST, WeightFolder
from actors.weights.weight_slices import HostSlices, split_axis
from actors.weights.xai_layout import XaiLayout, file_name

__all__ = ["load", "open_layout", "quantize", "random_parameters", "read", "write"]

# tensors fetched before they are needed; with the one in use they bound the host's memory
_READ_AHEAD = 2

Layout = XaiLayout | SafetensorsLayout


def load(
    url: str | PathLike[str],
    config: ModelConfig,
    mesh: Mesh,
    report: Callable[[float], None] = lambda _share: None,
) -> dict[str, dict[str, LoadedWeight]]:
    """Reads either layout onto the mesh, split by `parameter_specs`.

    Scales whose groups do not match the mesh are repeated, so that any mesh that divides the model
    works.

    Args:
        url: folder or URL of the checkpoint.
        config: the model.
        mesh: devices that receive the weights.
        report: called after every tensor with the share of the parameters that are loaded.

    Returns:
        {Haiku module: {name: array or QuantizedWeight}}.

    Raises:
        ModelError: the mesh does not divide the model, or the folder does not hold its weights.
    """
    check_divisible(config, mesh.shape["model"])
    specs = parameter_specs(config)
    params: dict[str, dict[str, LoadedWeight]] = {}
    total = parameter_shapes(config).parameters
    loaded = 0
    for tensor, slices in _fetched(url, config, mesh.shape["model"]):
        placed = _place(tensor, slices, mesh, specs[tensor.module][tensor.name])
        jax.block_until_ready(placed)  # the host's copy can go
        params.setdefault(tensor.module, {})[tensor.name] = placed
        del slices
        loaded += math.prod(tensor.shape)
        report(loaded / total)
    return params


def read(url: str | PathLike[str], config: ModelConfig) -> Iterator[tuple[TensorSpec, HostTensor]]:
    """Yields every tensor, whole and checked, in the order of `parameter_shapes`.

    Raises:
        ModelError: a file is missing, superfluous, unreadable, damaged, or not of the expected
            type and shape.
    """
    for tensor, slices in _fetched(url, config, 1):
        yield tensor, slices.joined(tensor)


@contextmanager
def open_layout(url: str | PathLike[str], config: ModelConfig) -> Iterator[Layout]:
    """Opens a folder of weights in the layout that it has.

    Raises:
        ModelError: it has none, or names and sizes of its files are not those of this model.
    """
    with WeightFolder(url) as folder:
        sizes = folder.sizes()
        if MANIFEST in sizes:
            yield SafetensorsLayout(folder, sizes, config)
        elif any(name.endswith(SUFFIX) for name in sizes):
            raise ModelError(
                f"checkpoint {url}: an unfinished conversion, it has no {MANIFEST}; run the same "
                "convert_checkpoint.py again"
            )
        else:
            yield XaiLayout(folder, sizes, config)


def _fetched(
    url: str | PathLike[str], config: ModelConfig, count: int
) -> Iterator[tuple[TensorSpec, HostSlices]]:
    """Yields every tensor in `count` slices; the next ones are read meanwhile."""
    tensors = iter(enumerate(parameter_shapes(config)))
    with (
        open_layout(url, config) as layout,
        ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="checkpoint") as pool,
    ):

        def fetch(number: int, tensor: TensorSpec) -> "tuple[TensorSpec, Future[HostSlices]]":
            return tensor, pool.submit(layout.fetch, number, tensor, count)

        fetched = deque(starmap(fetch, islice(tensors, _READ_AHEAD)))
        try:
            while fetched:
                tensor, future = fetched.popleft()
                slices = future.result()
                fetched.extend(starmap(fetch, islice(tensors, 1)))
                del future
                yield tensor, slices
                del slices
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def write(
    parameters: Mapping[str, Mapping[str, Any]] | Iterable[tuple[str, Any]],
    folder: str | PathLike[str],
) -> None:
    """Writes parameters as a checkpoint in xAI's own format, readable by the reference.

    Args:
        parameters: {module: {name: tensor}}, or (path, tensor) pairs in file order. A tensor is a
            float32 array, or a pair of int8 weight and bfloat16 scales (`Int8Tensor`,
            `QuantizedWeight`).
        folder: local folder or URL; made if it does not exist.

    Raises:
        ValueError: pairs are not in file order, or an array is of a type the format does not have.
    """
    if isinstance(parameters, Mapping):
        parameters = _in_file_order(parameters)
    files, root = fsspec.core.url_to_fs(fspath(folder))
    files.makedirs(root, exist_ok=True)
    previous: tuple[str, str] = ("", "")
    for number, (path, tensor) in enumerate(parameters):
        module, _, name = path.rpartition("/")
        if (module, name) <= previous:
            raise ValueError(
                f"{path} follows {'/'.join(previous)}; parameters must come sorted by module and "
                "name"
            )
        previous = (module, name)
        host: HostTensor
        if isinstance(tensor, tuple):
            weight, scales = tensor
            host = Int8Tensor(np.asarray(weight), np.asarray(scales))
        else:
            host = np.asarray(tensor)
        with files.open(f"{root}/{file_name(number)}", "wb") as file:
            for piece in pickle_tensor(host):
                file.write(piece)


def _in_file_order(parameters: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yields (path, tensor) sorted by module and name."""
    for module, entries in sorted(parameters.items()):
        for name, tensor in sorted(entries.items()):
            yield f"{module}/{name}", tensor


def _place(tensor: TensorSpec, slices: HostSlices, mesh: Mesh, spec: Any) -> LoadedWeight:
    axis = split_axis(tensor)
    if slices.scales is None:
        return _put(slices.values, tensor.shape, axis, mesh, spec)

    weight = _put(slices.values, tensor.shape, axis, mesh, spec.weight)
    scales = slices.scales
    shards = mesh.shape["model"]
    rows_are_split = RULES[tensor.axes[-2]] is not None
    if rows_are_split:
        groups = scales.shape[-2]
        scales = np.repeat(scales, sharded_groups(groups, shards) // groups, axis=-2)

    scale_slices: tuple[np.ndarray, ...] = (scales,)
    if axis is not None:
        scale_slices = tuple(map(np.ascontiguousarray, np.split(scales, shards, axis)))
    return QuantizedWeight(weight, _put(scale_slices, scales.shape, axis, mesh, spec.scales))


def _put(
    slices: tuple[np.ndarray, ...],
    shape: tuple[int, ...],
    axis: int | None,
    mesh: Mesh,
    spec: PartitionSpec,
) -> jax.Array:
    """Returns the array with each device's slice on it.

    Devices that are CPUs may use the slice's memory from then on: nothing else writes to it.
    """
    sharding = NamedSharding(mesh, spec)
    arrays = []
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        start = 0
        if axis is not None and index is not None:
            start = index[axis].start or 0
        number = start * len(slices) // shape[axis or 0]
        arrays.append(jax.device_put(slices[number], device))
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)
