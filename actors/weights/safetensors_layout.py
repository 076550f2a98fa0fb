"""Reads and writes the safetensors layout: a file per tensor and a manifest.

    transformer.decoder_layer_0.moe.linear.w.safetensors     values.0 … values.7 and scales
    manifest.json                                            written last

A folder without a manifest is an unfinished conversion. Values are cut along the dimension that
meshes split, into as many parts as the largest mesh has devices, so that the slice of a device is
one range of bytes on every mesh that divides the model.
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
from actors.protocol.plain_text import quoted
from actors.weights.pickle_reader import HostTensor
from actors.weights.safetensors_header import (
    LENGTH_BYTES,
    MAX_HEADER_BYTES,
    StoredArray,
    parse_header,
)
from actors.weights.weight_files import MANIFEST, WeightFolder
from actors.weights.weight_slices import HostSlices, check_finite, cut, split_axis

SUFFIX = ".safetensors"
_FORMAT = "grok-batch weights"
_VERSION = 1
_MAX_MANIFEST_BYTES = 16 * 1024 * 1024  # Grok-1's takes 150,000
_SCALES = "scales"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file's entry in the manifest."""

    size: int  # bytes
    sha256: str  # hexadecimal, of the whole file


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a folder by name, and how many parts split tensors are cut into."""

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
        """Returns "sha256:…" over all files: it changes when any byte of the weights does."""
        lines = "".join(
            f"{name}\0{file.size}\0{file.sha256}\0" for name, file in sorted(self.files.items())
        )
        return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def read_manifest(folder: WeightFolder, size: int) -> Manifest:
    """Returns the manifest of a folder, in which it takes `size` bytes.

    Raises:
        ModelError: it cannot be read, or does not have this format.
    """
    if size > _MAX_MANIFEST_BYTES:
        raise ModelError(
            f"{folder.url}/{MANIFEST}: {size} bytes, expected at most {_MAX_MANIFEST_BYTES}; it is "
            "no manifest"
        )
    return parse_manifest(folder.read(MANIFEST, 0, size).tobytes(), f"{folder.url}/{MANIFEST}")


def parse_manifest(text: bytes, name: str) -> Manifest:
    """Returns the manifest of a JSON text.

    Raises:
        ModelError: the text does not have this format.
    """
    try:
        content = json.loads(text)
        if (content["format"], content["version"]) != (_FORMAT, _VERSION):
            raise ValueError(
                f"format {quoted(content['format'])} version {quoted(content['version'])}, "
                f"expected {quoted(_FORMAT)} {_VERSION}"
            )
        files = {key: _parse_file(key, entry) for key, entry in content["files"].items()}
        if type(content["parts"]) is not int or content["parts"] < 1:
            raise ValueError(f"parts {quoted(content['parts'])}, expected a positive whole number")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        cause = f"{type(error).__name__}: {str(error)[:150]}"
        raise ModelError(
            f"{name}: not a manifest of converted weights ({cause}); convert again"
        ) from error
    return Manifest(content["parts"], files)


def _parse_file(name: str, entry: dict[str, Any]) -> StoredFile:
    if not re.fullmatch(r"[\w.-]+\.safetensors", name):
        raise ValueError(f"{quoted(name)} is not the name of a file of weights")
    size = entry["bytes"]
    if type(size) is not int or size < 0:
        raise ValueError(f"{name}: bytes {quoted(size)}, expected a whole number")
    if not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
        raise ValueError(f"{name}: sha256 is not 64 hexadecimal digits")
    return StoredFile(size, entry["sha256"])


def parts_of(config: ModelConfig) -> int:
    """Returns the parts of split tensors: the devices of the model's largest mesh."""
    return math.gcd(config.num_kv_heads, config.ffn_size, config.vocab_size)


def file_name(tensor: TensorSpec) -> str:
    """Returns the name of the file that holds a tensor."""
    return tensor.path.replace("/", ".") + SUFFIX


def pack(tensor: TensorSpec, value: HostTensor, parts: int) -> bytes:
    """Returns the file of a tensor; needs memory for two more copies of it."""
    slices = cut(tensor, value, parts)
    arrays = {f"values.{number}": part for number, part in enumerate(slices.values)}
    if slices.scales is not None:
        arrays[_SCALES] = np.ascontiguousarray(slices.scales)
    return bytes(safetensors.numpy.save(arrays))


def listing_problems(
    sizes: dict[str, int], manifest: Manifest, config: ModelConfig
) -> list[tuple[str, str]]:
    """Returns (file, problem) where a listing, the manifest and the model contradict each other."""
    expected = {file_name(tensor) for tensor in parameter_shapes(config)}
    present = {name for name in sizes if name.endswith(SUFFIX)}
    listed = manifest.files.keys()
    problems: list[tuple[str, str]] = []
    for name in expected | present | listed:
        if name not in expected:
            problems.append((name, "not of this model"))
        elif name not in present:
            problems.append((name, "missing"))
        elif name not in listed:
            problems.append((name, "not in the manifest"))
        elif sizes[name] != manifest.files[name].size:
            size = manifest.files[name].size
            problem = f"{sizes[name]} bytes, the manifest says {size}: truncated or replaced"
            problems.append((name, problem))
    return sorted(problems)


class SafetensorsLayout:
    """An open folder of a model in the safetensors layout.

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
            ModelError: the file is unreadable, damaged, not of the expected type and shape, or not
                cut for so many devices.
        """
        name = file_name(tensor)
        url = f"{self.folder.url}/{name}"
        size = self.sizes[name]
        head = _read_head(self.folder, name, size)
        arrays, begin = parse_header(head.tobytes(), size, url)
        _check_arrays(arrays, tensor, self.manifest.parts, url)
        body = head[begin:]
        if len(head) < size:
            body = self.folder.read(name, begin, size)
        slices = _slices(body, begin, arrays, tensor, count, url)
        check_finite(tensor, slices, url)
        return slices


def check_header(
    folder: WeightFolder, name: str, size: int, tensor: TensorSpec, parts: int
) -> None:
    """Checks a file's header against the model, without its numbers.

    Raises:
        ModelError: the header is damaged, or describes another tensor.
    """
    url = f"{folder.url}/{name}"
    arrays, _ = parse_header(_read_head(folder, name, size).tobytes(), size, url)
    _check_arrays(arrays, tensor, parts, url)


def _read_head(folder: WeightFolder, name: str, size: int) -> np.ndarray:
    return folder.read(name, 0, min(size, LENGTH_BYTES + MAX_HEADER_BYTES))


def _check_arrays(
    arrays: dict[str, StoredArray], tensor: TensorSpec, parts: int, name: str
) -> None:
    axis = split_axis(tensor)
    count = parts if axis is not None else 1
    if axis is not None and tensor.shape[axis] % parts:
        raise ModelError(
            f"{name}: {tensor.path} {list(tensor.shape)} cannot be in {parts} parts; convert again"
        )
    shape = list(tensor.shape)
    if axis is not None:
        shape[axis] //= count
    dtype = "float32" if tensor.scale_groups is None else "int8"
    expected = {f"values.{number}": (dtype, tuple(shape)) for number in range(count)}
    if tensor.scales_shape is not None:
        expected[_SCALES] = ("bfloat16", tensor.scales_shape)

    actual = {key: (array.dtype.name, array.shape) for key, array in arrays.items()}
    for key in sorted(expected.keys() | actual.keys()):
        if expected.get(key) != actual.get(key):
            raise ModelError(
                f"{name}: expected {tensor.path} with {_describe(key, expected.get(key))}, got "
                f"{_describe(key, actual.get(key))}; "
                "the file belongs to another tensor or another model, convert again or correct "
                "--model"
            )


def _describe(key: str, array: tuple[str, tuple[int, ...]] | None) -> str:
    if array is None:
        return f"no {key[:80]}"
    dtype, shape = array
    return f"{key[:80]} {dtype} {list(shape)}"


def _slices(
    body: np.ndarray,
    begin: int,
    arrays: dict[str, StoredArray],
    tensor: TensorSpec,
    count: int,
    name: str,
) -> HostSlices:
    """Returns views of the file's numbers, copied where parts of a slice are not contiguous.

    `body` holds the file from byte `begin` on.
    """

    def view(array: StoredArray) -> np.ndarray:
        numbers = body[array.start - begin : array.end - begin].view(array.dtype)
        return numbers.reshape(array.shape)

    parts_count = len(arrays) - (_SCALES in arrays)
    parts = [arrays[f"values.{number}"] for number in range(parts_count)]
    axis = split_axis(tensor)
    if axis is None:
        count = 1
    if len(parts) % count:
        raise ModelError(
            f"{name}: its {len(parts)} parts cannot be given to {count} devices; convert the "
            "checkpoint again"
        )

    slice_parts = len(parts) // count
    values = []
    for first in range(0, len(parts), slice_parts):
        joined = _join_parts(parts[first : first + slice_parts], axis or 0)
        if joined is None:
            views = [view(part) for part in parts[first : first + slice_parts]]
            values.append(np.concatenate(views, axis or 0))
        else:
            values.append(view(joined))

    scales = None
    if _SCALES in arrays:
        # a copy: devices that are CPUs would keep the memory of the complete file for this view
        scales = np.array(view(arrays[_SCALES]))
    return HostSlices(tuple(values), scales)


def _join_parts(parts: list[StoredArray], axis: int) -> StoredArray | None:
    """Returns consecutive parts of a file as one array, or None where its rows interleave."""
    first = parts[0]
    last = parts[-1]
    follow_each_other = all(part.end == successor.start for part, successor in pairwise(parts))
    is_contiguous = math.prod(first.shape[:axis]) == 1 and follow_each_other
    if len(parts) > 1 and not is_contiguous:
        return None
    shape = list(first.shape)
    shape[axis] *= len(parts)
    return StoredArray(first.dtype, tuple(shape), first.start, last.end)
