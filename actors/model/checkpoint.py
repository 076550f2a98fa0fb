"""xAI's checkpoint folder `ckpt-0` <-> parameters on a mesh. The only file of the model that does I/O.

Reading checks every file's name, size, type and shape against the model, and never executes anything from it. Tensors are
read one after the other, the next ones while the last is on its way to the devices; each device receives only its slice, and
the host holds a few tensors at most. Folders are local or any fsspec URL. Knows nothing of the model's mathematics.
"""

import mmap
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from os import PathLike, fspath
from typing import Any

import fsspec
import jax
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from actors.errors import ModelError
from actors.model.config import ModelConfig, TensorSpec, parameter_shapes
from actors.model.pickle_reader import HostTensor, Int8Tensor, describe, parse
from actors.model.pickle_writer import pickle_tensor
from actors.model.quantized import QuantizedWeight, Weight
from actors.model.random_weights import quantize, random_parameters
from actors.model.sharding import RULES, check_divisible, parameter_specs, sharded_groups

__all__ = ["load", "quantize", "random_parameters", "read", "write"]

_READ_AHEAD = 2  # tensors fetched before they are needed; with the one in use they bound the host's memory
_PART_BYTES = 64 * 1024 * 1024  # a remote file is fetched in parts of this size, several at a time
_PARTS_AT_ONCE = 8


def load(url: str | PathLike[str], config: ModelConfig, mesh: Mesh) -> dict[str, dict[str, Weight]]:
    """Reads a checkpoint onto the mesh: {Haiku module: {name: array or QuantizedWeight}}, split as `parameter_specs` says.

    Scales whose groups do not match the mesh are repeated, so that any mesh that divides the model works.

    Raises:
        ModelError: the mesh does not divide the model, or the folder is not a checkpoint of it.
    """
    check_divisible(config, mesh.shape["model"])
    specs = parameter_specs(config)
    params: dict[str, dict[str, Weight]] = {}
    for tensor, value in read(url, config):
        placed = _place(tensor, value, mesh, specs[tensor.module][tensor.name])
        jax.block_until_ready(placed)  # the host's copy can go
        params.setdefault(tensor.module, {})[tensor.name] = placed
    return params


def read(url: str | PathLike[str], config: ModelConfig) -> Iterator[tuple[TensorSpec, HostTensor]]:
    """Yields every tensor in file order, checked; local files stay on disk (views of a memory map) until they are touched.

    Raises:
        ModelError: a file is missing, superfluous, unreadable, damaged, or not of the expected type and shape.
    """
    files, root = fsspec.core.url_to_fs(fspath(url))
    tensors = list(parameter_shapes(config))
    sizes = _list(files, root, str(url), tensors)
    work = iter(enumerate(tensors))
    with ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="checkpoint") as pool:

        def fetch(number: int, tensor: TensorSpec) -> "Future[HostTensor]":
            name = file_name(number)
            return pool.submit(_read_one, files, f"{root}/{name}", f"{url}/{name}", sizes[name], tensor)

        ahead = deque((tensor, fetch(number, tensor)) for number, tensor in islice(work, _READ_AHEAD))
        while ahead:
            tensor, future = ahead.popleft()
            value = future.result()
            ahead.extend((later, fetch(number, later)) for number, later in islice(work, 1))
            del future
            yield tensor, value
            del value


def write(parameters: Mapping[str, Mapping[str, Any]] | Iterable[tuple[str, Any]], folder: str | PathLike[str]) -> None:
    """Writes parameters as a checkpoint in xAI's own format, readable by the reference.

    Args:
        parameters: {module: {name: tensor}}, or (path, tensor) pairs in file order. A tensor is a float32 array, or a pair of
            int8 weight and bfloat16 scales (`Int8Tensor`, `QuantizedWeight`).
        folder: local folder or URL; made if it does not exist.

    Raises:
        ValueError: pairs are not in file order, or an array is of a type the format does not have.
    """
    if isinstance(parameters, Mapping):
        nested = parameters
        parameters = ((f"{m}/{n}", nested[m][n]) for m in sorted(nested) for n in sorted(nested[m]))
    files, root = fsspec.core.url_to_fs(fspath(folder))
    files.makedirs(root, exist_ok=True)
    previous: tuple[str, str] = ("", "")
    for number, (path, tensor) in enumerate(parameters):
        module, _, name = path.rpartition("/")
        if (module, name) <= previous:
            raise ValueError(f"{path} follows {'/'.join(previous)}; parameters must come sorted by module and name")
        previous = (module, name)
        host = Int8Tensor(*map(np.asarray, tensor)) if isinstance(tensor, tuple) else np.asarray(tensor)
        with files.open(f"{root}/{file_name(number)}", "wb") as file:
            for piece in pickle_tensor(host):
                file.write(piece)


def file_name(number: int) -> str:
    """Returns the name of the file that holds the tensor at this position of the flattened parameters."""
    return f"tensor{number:05d}_000"


def _list(files: fsspec.AbstractFileSystem, root: str, url: str, tensors: list[TensorSpec]) -> dict[str, int]:
    """Returns {file name: bytes}. Raises ModelError where names or sizes cannot be those of a checkpoint of this model."""
    try:
        entries = files.ls(root, detail=True)
    except FileNotFoundError:
        raise ModelError(f"checkpoint {url}: no such folder; give the folder that holds tensor00000_000") from None
    except OSError as error:
        raise ModelError(f"checkpoint {url}: cannot be listed ({error})") from error
    names = {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry for entry in entries}
    found = {name: int(entry["size"]) for name, entry in names.items() if re.match(r"tensor\d", name)}
    if not found:
        hint = "; it has a folder ckpt-0, give that" if "ckpt-0" in names else ""
        raise ModelError(f"checkpoint {url}: no checkpoint, it holds none of the files tensor00000_000 …{hint}")
    expected = {file_name(number): tensor for number, tensor in enumerate(tensors)}
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        raise ModelError(
            f"checkpoint {url}: expected {len(expected)} tensor files for this model, found {len(found)}"
            f"{_some('; missing', missing)}{_some('; not of this model:', extra)}; "
            f"{'fetch the missing files' if missing and not extra else 'check that --model and --checkpoint belong together'}"
        )
    for name, tensor in expected.items():
        if found[name] < tensor.stored_bytes:
            raise ModelError(
                f"{url}/{name}: {found[name]} bytes, but {tensor.path} ({_expected(tensor)}) takes {tensor.stored_bytes} "
                f"and more; the file is truncated or another tensor, fetch it again"
            )
    return found


def _some(what: str, names: list[str]) -> str:
    return f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}" if names else ""


def _read_one(files: fsspec.AbstractFileSystem, path: str, name: str, size: int, tensor: TensorSpec) -> HostTensor:
    try:
        buffer = _map(path) if isinstance(files, LocalFileSystem) else _fetch(files, path, size)
    except OSError as error:
        raise ModelError(f"{name}: cannot be read ({error})") from error
    value = parse(buffer, name)
    if describe(value) != _expected(tensor):
        raise ModelError(
            f"{name}: expected {tensor.path} as {_expected(tensor)}, got {describe(value)}; "
            f"the file belongs to another tensor or another model, fetch it again or correct --model"
        )
    small = value.scales if isinstance(value, Int8Tensor) else value
    # not the embedding: its check would take as long as its reading
    if tensor.name != "embeddings" and not np.isfinite(small.astype(np.float32)).all():
        raise ModelError(f"{name}: {tensor.path} holds NaN or infinity; fetch the file again")
    return value


def _expected(tensor: TensorSpec) -> str:
    if tensor.scales_shape is None:
        return f"float32 {list(tensor.shape)}"
    return f"int8 {list(tensor.shape)} with scales bfloat16 {list(tensor.scales_shape)}"


def _map(path: str) -> memoryview:
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.madvise(mmap.MADV_WILLNEED)  # the kernel reads ahead while the devices are busy with the tensor before
    return memoryview(mapped)


def _fetch(files: fsspec.AbstractFileSystem, path: str, size: int) -> memoryview:
    whole = memoryview(bytearray(size))

    def part(start: int) -> None:
        end = min(start + _PART_BYTES, size)
        piece = files.cat_file(path, start=start, end=end)
        if len(piece) != end - start:
            raise OSError(f"{len(piece)} of {end - start} bytes came at offset {start}")
        whole[start:end] = piece

    with ThreadPoolExecutor(_PARTS_AT_ONCE, thread_name_prefix="part") as pool:
        for _ in pool.map(part, range(0, size, _PART_BYTES)):
            continue
    return whole.toreadonly()


def _place(tensor: TensorSpec, value: HostTensor, mesh: Mesh, spec: Any) -> Weight:
    if not isinstance(value, Int8Tensor):
        return _put(value, mesh, spec)
    scales = value.scales
    if RULES[tensor.axes[-2]] is not None:
        groups = scales.shape[-2]
        finer = sharded_groups(groups, mesh.shape["model"])
        scales = np.repeat(scales, finer // groups, axis=-2)
    return QuantizedWeight(_put(value.weight, mesh, spec.weight), _put(scales, mesh, spec.scales))


def _put(array: np.ndarray, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    on_cpu = mesh.devices.flat[0].platform == "cpu"

    def local_slice(index: tuple[slice, ...] | None) -> np.ndarray:
        piece = array if index is None else array[index]
        # JAX may keep using a host buffer on CPUs: it must not be the file, which somebody could change or truncate
        return np.array(piece) if on_cpu else piece

    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), local_slice)
