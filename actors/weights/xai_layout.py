"""Reads tensors of xAI's checkpoint folder `ckpt-0`: a pickle per tensor, never executed.

Names and sizes of all files are checked before the first is read.
"""

import math
import mmap
import re
import struct

import numpy as np

from actors.model.config import ModelConfig, TensorSpec, parameter_shapes
from actors.protocol.errors import ModelError
from actors.weights.pickle_reader import parse
from actors.weights.weight_files import WeightFolder
from actors.weights.weight_slices import HostSlices, check, cut, expected

_HEAD_BYTES = 4096  # the opcodes before a tensor's numbers take some 200
_SMALL_BYTES = 1 << 20  # files up to this are read whole even when only their structure is wanted


class XaiLayout:
    """An open ckpt-0 of a model.

    Raises:
        ModelError: files are missing, superfluous or too short.
    """

    def __init__(self, folder: WeightFolder, sizes: dict[str, int], config: ModelConfig) -> None:
        self.folder = folder
        self.sizes = tensor_files(sizes)
        tensors = list(parameter_shapes(config))
        if not self.sizes:
            hint = "; it has a folder ckpt-0, give that" if "ckpt-0" in sizes else ""
            raise ModelError(
                f"checkpoint {folder.url}: no checkpoint, it holds none of the files "
                f"tensor00000_000 …{hint}"
            )
        missing, extra = names_that_differ(self.sizes, tensors)
        if missing or extra:
            advice = "check that --model and --checkpoint belong together"
            if not extra:
                advice = "fetch the missing files"
            raise ModelError(
                f"checkpoint {folder.url}: expected {len(tensors)} tensor files for this model, "
                f"found {len(self.sizes)}"
                f"{_first_names('; missing', missing)}"
                f"{_first_names('; not of this model:', extra)}; {advice}"
            )
        for number, tensor in enumerate(tensors):
            check_size(f"{folder.url}/{file_name(number)}", self.sizes[file_name(number)], tensor)

    def fetch(self, number: int, tensor: TensorSpec, count: int) -> HostSlices:
        """Reads a tensor and returns it in `count` slices.

        Raises:
            ModelError: the file is unreadable, damaged, or not of the expected type and shape.
        """
        name = file_name(number)
        size = self.sizes[name]
        align = 0
        if size > _SMALL_BYTES:
            head = self.folder.read(name, 0, min(size, _HEAD_BYTES))
            align = max(0, _payload_start(head, tensor))

        url = f"{self.folder.url}/{name}"
        buffer = self.folder.read(name, 0, size, align=align)
        value = parse(buffer.data, url)
        check(tensor, value, url)
        return cut(tensor, value, count)


def inspect(folder: WeightFolder, name: str, size: int, tensor: TensorSpec) -> None:
    """Checks a file without reading its int8 numbers or the embedding.

    Checks structure, types, shapes, scales, norms and routers. The rest is zeros in memory that is
    never touched, so that the reader gets a complete file.

    Raises:
        ModelError: the file is unreadable, truncated, damaged, or another tensor.
    """
    url = f"{folder.url}/{name}"
    check_size(url, size, tensor)
    head = folder.read(name, 0, size if size <= _SMALL_BYTES else _HEAD_BYTES)
    payload = _payload_start(head, tensor)
    # small, or not as xAI writes it: the reader then raises with what it is
    if len(head) == size or payload < 0:
        content = head if len(head) == size else folder.read(name, 0, size)
        check(tensor, parse(content.data, url), url)
        return

    payload_end = payload + _payload_bytes(tensor)
    # freed with the last view of it
    sparse = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    sparse[: len(head)] = head.tobytes()
    sparse[payload_end:] = folder.read(name, min(payload_end, size), size).tobytes()
    check(tensor, parse(memoryview(sparse), url), url)


def file_name(number: int) -> str:
    """Returns the name of the file of the tensor at this position of the flattened parameters."""
    return f"tensor{number:05d}_000"


def tensor_files(sizes: dict[str, int]) -> dict[str, int]:
    """Returns those files of a listing that claim to be tensors."""
    return {name: size for name, size in sizes.items() if re.match(r"tensor\d", name)}


def names_that_differ(
    sizes: dict[str, int], tensors: list[TensorSpec]
) -> tuple[list[str], list[str]]:
    """Returns the names that are missing, and those that no tensor of the model has."""
    expected_names = {file_name(number) for number in range(len(tensors))}
    missing = expected_names - sizes.keys()
    extra = sizes.keys() - expected_names
    return sorted(missing), sorted(extra)


def check_size(name: str, size: int, tensor: TensorSpec) -> None:
    """Checks that a file is long enough for its tensor. Raises ModelError."""
    if size < tensor.stored_bytes:
        raise ModelError(
            f"{name}: {size} bytes, but {tensor.path} ({expected(tensor)}) takes "
            f"{tensor.stored_bytes} "
            f"and more; the file is truncated or another tensor, fetch it again"
        )


def _payload_bytes(tensor: TensorSpec) -> int:
    return math.prod(tensor.shape) * (4 if tensor.scale_groups is None else 1)


def _payload_start(head: np.ndarray, tensor: TensorSpec) -> int:
    """Returns where the tensor's numbers begin in its file, -1 if the head does not contain it."""
    count = _payload_bytes(tensor)
    if count < 1 << 8:
        opcode = b"C" + struct.pack("<B", count)
    elif count < 1 << 32:
        opcode = b"B" + struct.pack("<I", count)
    else:
        opcode = b"\x8e" + struct.pack("<Q", count)
    position = head.tobytes().find(opcode)
    return -1 if position < 0 else position + len(opcode)


def _first_names(title: str, names: list[str]) -> str:
    """Returns the first three names after a title, and how many more there are."""
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{title} {', '.join(names[:3])}{more}"
