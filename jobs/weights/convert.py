"""Converts xAI's ckpt-0 to the converted layout: one safetensors file per tensor and a manifest.

Every file appears complete and is never overwritten; the manifest is written last. A conversion
that was killed continues: existing files are compared with the source instead of written again.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from actors.model.config import ModelConfig, TensorSpec, parameter_shapes
from actors.protocol.errors import ModelError
from actors.weights.pickle_reader import HostTensor, Int8Tensor
from actors.weights.safetensors_header import parse_header
from actors.weights.safetensors_layout import (
    Manifest,
    SafetensorsLayout,
    StoredFile,
    file_name,
    listing_problems,
    pack,
    parts_of,
)
from actors.weights.weight_files import MANIFEST, WeightFolder
from actors.weights.weight_slices import cut
from actors.weights.xai_layout import XaiLayout
from jobs.cli.byte_progress import ByteProgress
from jobs.cli.flag_checks import check_range, require_flags
from jobs.cli.parser import flag
from jobs.cli.uploaded_folder import check_output_is_kept
from pipeline import storage
from pipeline.errors import ConfigError

HEADER_BYTES = 1 << 17  # of a safetensors file; headers of Grok-1's tensors are below 2 kB
PutIfAbsent = Callable[[str, bytes], bool]


@dataclass(frozen=True)
class ConvertConfig:
    """Flags of jobs/convert_checkpoint.py.

    Raises:
        ConfigError: a flag is missing or out of range.
    """

    source: str | None = flag(None, "folder or URL of xAI's ckpt-0; required", short="-i")
    target: str | None = flag(
        None,
        "folder or s3:// URL of the converted weights, created if absent; required",
        short="-o",
    )
    model: str = flag("grok-1", "grok-1, demo, or a path or URL of a JSON file of hyperparameters")
    workers: int = flag(2, "tensors that are converted at a time")
    verify: bool = flag(True, "read every file back and compare all numbers with the source")

    def __post_init__(self) -> None:
        require_flags(self, ["source", "target"])
        check_output_is_kept(self, ["target"])
        check_range("workers", self.workers, 1)


def check_source(source: str, model: ModelConfig) -> None:
    """Checks that a folder is a checkpoint of the model, by names and sizes.

    Raises:
        ConfigError: it is not.
    """
    try:
        with WeightFolder(source) as folder:
            XaiLayout(folder, folder.sizes(), model)
    except ModelError as error:
        raise ConfigError(str(error)) from error


def convert(
    source: str,
    target: str,
    config: ModelConfig,
    *,
    workers: int = 2,
    verify: bool = True,
    put_if_absent: PutIfAbsent = storage.put_if_absent,
) -> Manifest:
    """Converts the weights of a model, or continues an unfinished conversion.

    Args:
        source: folder or URL of xAI's ckpt-0.
        target: folder or URL of the converted weights.
        config: hyperparameters of the model.
        workers: tensors in memory at a time; each takes about four times its size.
        verify: read every file back, not only those that existed.
        put_if_absent: creates an object unless it exists; returns whether it did.

    Returns:
        The manifest of the target.

    Raises:
        ModelError: the source is not a checkpoint of the model, or the target holds other weights.
        DatasetError: the target cannot be written.
    """
    with ExitStack() as stack:
        source_folder = stack.enter_context(WeightFolder(source))
        target_folder = stack.enter_context(WeightFolder(target))
        layout = XaiLayout(source_folder, source_folder.sizes(), config)

        existing = _existing_files(target)
        if MANIFEST in existing:
            return SafetensorsLayout(target_folder, existing, config).manifest

        conversion = _Conversion(
            layout, target_folder, existing, parts_of(config), verify, put_if_absent
        )
        files = _convert_tensors(conversion, list(parameter_shapes(config)), workers)
        manifest = Manifest(conversion.parts, files)

        problems = listing_problems(target_folder.sizes(), manifest, config)
        if problems:
            name, problem = problems[0]
            raise ModelError(
                f"{target}: {name}: {problem}; choose another --target, or delete that file"
            )
        put_if_absent(storage.join(target, MANIFEST), manifest.to_json())
        return manifest


def _existing_files(url: str) -> dict[str, int]:
    """Returns {file name: size in bytes} of a folder."""
    sizes: dict[str, int] = {}
    for stored in storage.list_objects(url):
        name = stored.url.rsplit("/", 1)[-1]
        sizes[name] = stored.size
    return sizes


@dataclass(frozen=True)
class _Conversion:
    layout: XaiLayout
    target: WeightFolder
    existing: Mapping[str, int]  # sizes of the target's files when the conversion started
    parts: int  # devices that a tensor is cut for
    verify: bool
    put_if_absent: PutIfAbsent

    def convert_tensor(self, number: int, tensor: TensorSpec) -> tuple[TensorSpec, StoredFile]:
        """Writes the file of a tensor, or compares the existing one; returns its manifest entry."""
        name = file_name(tensor)
        url = storage.join(self.target.url, name)
        value = self.layout.fetch(number, tensor, 1).joined(tensor)
        data = pack(tensor, value, self.parts)
        stored = StoredFile(len(data), hashlib.sha256(data).hexdigest())

        created = name not in self.existing and self.put_if_absent(url, data)
        del data  # up to 6.6 GB; the comparison reads the file into memory of its own
        if self.verify or not created:
            self._compare(name, tensor, value, stored, url)
        return tensor, stored

    def _compare(
        self, name: str, tensor: TensorSpec, value: HostTensor, stored: StoredFile, url: str
    ) -> None:
        """Reads the file back.

        Raises:
            ModelError: the file does not hold exactly the tensor of the source.
        """
        size = self.existing.get(name, stored.size)
        if size != stored.size:
            raise ModelError(
                f"{url}: {size} bytes, expected {stored.size}; the file belongs to another "
                "conversion, delete it or choose another --target"
            )
        content = self.target.read(name, 0, size)
        same_digest = hashlib.sha256(content.data).hexdigest() == stored.sha256
        if not same_digest or not _holds_tensor(content, tensor, value, self.parts, url):
            raise ModelError(
                f"{url}: differs from {self.layout.folder.url}; the file is damaged or of another "
                "source, delete it and convert again"
            )


def _holds_tensor(
    content: np.ndarray, tensor: TensorSpec, value: HostTensor, parts: int, url: str
) -> bool:
    """Returns whether a file has the numbers of the source.

    Reads the file without the code that wrote it, so that a fault of the writer is found.
    """
    header_bytes = content[: min(len(content), HEADER_BYTES)].tobytes()
    entries, _ = parse_header(header_bytes, len(content), url)

    expected: dict[str, np.ndarray] = {}
    for number, part in enumerate(cut(tensor, value, parts).values):
        expected[f"values.{number}"] = part
    if isinstance(value, Int8Tensor):
        expected["scales"] = value.scales

    if entries.keys() != expected.keys():
        return False
    for key, array in expected.items():
        entry = entries[key]
        if entry.dtype != array.dtype or entry.shape != array.shape:
            return False
        stored_bytes = content[entry.start : entry.end].tobytes()
        if stored_bytes != array.tobytes():
            return False
    return True


def _convert_tensors(
    conversion: _Conversion, tensors: Sequence[TensorSpec], workers: int
) -> dict[str, StoredFile]:
    total_bytes = sum(tensor.stored_bytes for tensor in tensors)
    progress = ByteProgress(total_bytes, "converted")
    files: dict[str, StoredFile] = {}

    with ThreadPoolExecutor(workers, thread_name_prefix="convert") as pool:
        futures = [
            pool.submit(conversion.convert_tensor, number, tensor)
            for number, tensor in enumerate(tensors)
        ]
        try:
            for future in as_completed(futures):
                tensor, stored = future.result()
                files[file_name(tensor)] = stored
                progress.add(tensor.stored_bytes, tensor.path)
        finally:
            # Tensors under way are finished, so that their files are complete.
            pool.shutdown(wait=True, cancel_futures=True)
    return files
