"""The converted layout: a safetensors file per tensor and a manifest -> its tensors on the host, one at a time; and back.

    manifest.json                                            written last: without it a folder is an unfinished conversion
    transformer.decoder_layer_0.moe.linear.w.safetensors     values.0 … values.7 and scales

Values are cut along the dimension that meshes split, into as many parts as the largest mesh has
devices, so that the slice of a device is one range of bytes on every mesh that divides the model.
Knows nothing of devices; imports no JAX.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import safetensors.numpy

from actors.model.config import ModelConfig, TensorSpec, parameter_shapes
from actors.protocol.errors import ModelError
from actors.weights.pickle_reader import HostTensor
from actors.weights.safetensors_header import LENGTH_BYTES, LONGEST_HEADER, Stored, parse_header
from actors.weights.weight_files import MANIFEST, WeightFolder
from actors.weights.weight_slices import HostSlices, check_finite, cut, split_axis

SUFFIX = ".safetensors"
_FORMAT, _VERSION = "grok-batch weights", 1
_LONGEST_MANIFEST = 16 * 1024 * 1024  # bytes; Grok-1's takes 150,000
_SCALES = "scales"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What the manifest says of a file."""

    size: int  # bytes
    sha256: str  # hexadecimal, of the whole file


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a converted folder holds: {file name: size and digest}, and how many parts split tensors are cut into."""

    parts: int
    files: dict[str, StoredFile]

    def to_json(self) -> bytes:
        """Returns the text of the file."""
        files = {
            name: {"bytes": file.size, "sha256": file.sha256}
            for name, file in sorted(self.files.items())
        }
        content = {"format": _FORMAT, "version": _VERSION, "parts": self.parts, "files": files}
        return (json.dumps(content, indent=1) + "\n").encode()

    def digest(self) -> str:
        """Returns "sha256:…" over names, sizes and digests of all files: it changes when any byte of the weights does."""
        lines = "".join(
            f"{name}\0{file.size}\0{file.sha256}\0" for name, file in sorted(self.files.items())
        )
        return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def read_manifest(folder: WeightFolder, size: int) -> Manifest:
    """Returns the manifest of a folder, in which it takes `size` bytes.

    Raises:
        ModelError: it cannot be read, or is not one of this format.
    """
    if size > _LONGEST_MANIFEST:
        raise ModelError(
            f"{folder.url}/{MANIFEST}: {size} bytes, expected at most {_LONGEST_MANIFEST}; it is "
            "no manifest"
        )
    return parse_manifest(folder.read(MANIFEST, 0, size).tobytes(), f"{folder.url}/{MANIFEST}")


def parse_manifest(text: bytes, name: str) -> Manifest:
    """Returns the manifest that a text is. Raises ModelError."""
    try:
        content = json.loads(text)
        if (content["format"], content["version"]) != (_FORMAT, _VERSION):
            raise ValueError(
                f"format {content['format']!r} version {content['version']!r}, expected "
                f"{_FORMAT!r} {_VERSION}"
            )
        files = {key: _stored_file(key, entry) for key, entry in content["files"].items()}
        if type(content["parts"]) is not int or content["parts"] < 1:
            raise ValueError(f"parts {content['parts']!r}, expected a positive whole number")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        cause = f"{type(error).__name__}: {str(error)[:150]}"
        raise ModelError(
            f"{name}: not a manifest of converted weights ({cause}); convert again"
        ) from error
    return Manifest(content["parts"], files)


def _stored_file(name: str, entry: dict[str, Any]) -> StoredFile:
    if not re.fullmatch(r"[\w.-]+\.safetensors", name):
        raise ValueError(f"{name!r} is no name of a file of weights")
    if (
        type(entry["bytes"]) is not int
        or entry["bytes"] < 0
        or not re.fullmatch("[0-9a-f]{64}", entry["sha256"])
    ):
        raise ValueError(f"{name}: size or sha256 is none")
    return StoredFile(entry["bytes"], entry["sha256"])


def parts_of(config: ModelConfig) -> int:
    """Returns into how many parts split tensors are cut: the devices of the largest mesh that the model can be laid on."""
    return math.gcd(config.num_kv_heads, config.ffn_size, config.vocab_size)


def file_name(tensor: TensorSpec) -> str:
    """Returns the name of the file that holds a tensor."""
    return tensor.path.replace("/", ".") + SUFFIX


def pack(tensor: TensorSpec, value: HostTensor, parts: int) -> bytes:
    """Returns the file of a tensor. Takes memory for two more copies of it."""
    slices = cut(tensor, value, parts)
    arrays = {f"values.{number}": part for number, part in enumerate(slices.values)}
    if slices.scales is not None:
        arrays[_SCALES] = np.ascontiguousarray(slices.scales)
    return bytes(safetensors.numpy.save(arrays))


def listing_problems(
    sizes: dict[str, int], manifest: Manifest, config: ModelConfig
) -> list[tuple[str, str]]:
    """Returns (file, what is wrong) where a listing, the manifest and the model contradict each other."""
    wanted = {file_name(tensor) for tensor in parameter_shapes(config)}
    present = {name for name in sizes if name.endswith(SUFFIX)}
    problems = [(name, "missing") for name in wanted - present]
    problems += [(name, "not of this model") for name in (manifest.files.keys() | present) - wanted]
    problems += [
        (name, "not in the manifest") for name in (present & wanted) - manifest.files.keys()
    ]
    for name in present & wanted & manifest.files.keys():
        if sizes[name] != manifest.files[name].size:
            expected = manifest.files[name].size
            problem = f"{sizes[name]} bytes, the manifest says {expected}: truncated or replaced"
            problems.append((name, problem))
    return sorted(problems)


class ConvertedLayout:
    """An open converted folder of a model.

    Raises:
        ModelError: folder, manifest and model contradict each other.
    """

    def __init__(self, folder: WeightFolder, sizes: dict[str, int], config: ModelConfig) -> None:
        self.folder = folder
        self.sizes = sizes
        self.manifest = read_manifest(folder, sizes[MANIFEST])
        problems = listing_problems(sizes, self.manifest, config)
        if problems:
            first = ", ".join(f"{name}: {problem}" for name, problem in problems[:3])
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise ModelError(
                f"checkpoint {folder.url}: {first}{more}; copy or convert it again, or check that "
                "--model belongs to it"
            )

    def fetch(self, number: int, tensor: TensorSpec, count: int) -> HostSlices:
        """Reads a tensor and returns it in `count` slices.

        Raises:
            ModelError: the file is unreadable, damaged, not of the expected type and shape, or not cut for so many devices.
        """
        name = file_name(tensor)
        url, size = f"{self.folder.url}/{name}", self.sizes[name]
        head = _head(self.folder, name, size)
        arrays, begin = parse_header(head.tobytes(), size, url)
        _check_arrays(arrays, tensor, self.manifest.parts, url)
        body = head[begin:] if len(head) == size else self.folder.read(name, begin, size)
        slices = _slices(body, begin, arrays, tensor, count, url)
        check_finite(tensor, slices, url)
        return slices


def check_header(
    folder: WeightFolder, name: str, size: int, tensor: TensorSpec, parts: int
) -> None:
    """Checks a file's header against the model, without its numbers. Raises ModelError."""
    url = f"{folder.url}/{name}"
    _check_arrays(
        parse_header(_head(folder, name, size).tobytes(), size, url)[0], tensor, parts, url
    )


def _head(folder: WeightFolder, name: str, size: int) -> np.ndarray:
    return folder.read(name, 0, min(size, LENGTH_BYTES + LONGEST_HEADER))


def _check_arrays(arrays: dict[str, Stored], tensor: TensorSpec, parts: int, name: str) -> None:
    axis = split_axis(tensor)
    count = parts if axis is not None else 1
    if axis is not None and tensor.shape[axis] % parts:
        raise ModelError(
            f"{name}: {tensor.path} {list(tensor.shape)} cannot be in {parts} parts; convert again"
        )
    shape = tuple(
        size // count if number == axis else size for number, size in enumerate(tensor.shape)
    )
    wanted = {
        f"values.{number}": ("float32" if tensor.scale_groups is None else "int8", shape)
        for number in range(count)
    }
    if tensor.scales_shape is not None:
        wanted[_SCALES] = ("bfloat16", tensor.scales_shape)
    found = {key: (array.dtype.name, array.shape) for key, array in arrays.items()}
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            raise ModelError(
                f"{name}: expected {tensor.path} with {_spell(key, wanted.get(key))}, got "
                f"{_spell(key, found.get(key))}; "
                f"the file belongs to another tensor or another model, convert again or correct "
                f"--model"
            )


def _spell(key: str, array: tuple[str, tuple[int, ...]] | None) -> str:
    return f"no {key[:80]}" if array is None else f"{key[:80]} {array[0]} {list(array[1])}"


def _slices(
    body: np.ndarray,
    begin: int,
    arrays: dict[str, Stored],
    tensor: TensorSpec,
    count: int,
    name: str,
) -> HostSlices:
    """Returns views of the file's numbers.

    A slice of several parts that do not simply follow each other is joined in memory.
    """

    def view(array: Stored) -> np.ndarray:
        return body[array.start - begin : array.end - begin].view(array.dtype).reshape(array.shape)

    stored = [arrays[f"values.{number}"] for number in range(len(arrays) - (_SCALES in arrays))]
    axis = split_axis(tensor)
    if axis is None:
        count = 1
    if len(stored) % count:
        raise ModelError(
            f"{name}: its {len(stored)} parts cannot be given to {count} devices; convert the "
            "checkpoint again"
        )
    step = len(stored) // count
    values = tuple(
        _join(stored[at : at + step], axis or 0, view, body, begin)
        for at in range(0, len(stored), step)
    )
    # a copy: devices that are CPUs would keep the whole file's memory for the sake of this view
    scales = np.array(view(arrays[_SCALES])) if _SCALES in arrays else None
    return HostSlices(values, scales)


def _join(stored: list[Stored], axis: int, view: Any, body: np.ndarray, begin: int) -> np.ndarray:
    if len(stored) == 1:
        return view(stored[0])
    shape = stored[0].shape
    if math.prod(shape[:axis]) == 1 and all(
        one.end == other.start for one, other in pairwise(stored)
    ):
        rows = (*shape[:axis], shape[axis] * len(stored), *shape[axis + 1 :])
        return (
            body[stored[0].start - begin : stored[-1].end - begin]
            .view(stored[0].dtype)
            .reshape(rows)
        )
    return np.concatenate([view(array) for array in stored], axis)
