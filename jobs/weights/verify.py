"""Lists what is wrong with a folder of weights, in xAI's ckpt-0 layout or the converted layout."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from actors.model.config import ModelConfig, TensorSpec, parameter_shapes
from actors.protocol.errors import ModelError
from actors.protocol.plain_text import quoted
from actors.weights import safetensors_layout, xai_layout
from actors.weights.pickle_reader import Int8Tensor, parse
from actors.weights.weight_files import MANIFEST, WeightFolder
from actors.weights.weight_slices import check_finite, cut
from jobs.cli.byte_progress import ByteProgress
from jobs.cli.flag_checks import require_flags
from jobs.cli.parser import flag
from pipeline.errors import ConfigError

CONVERTED_LAYOUT = "converted layout"
XAI_LAYOUT = "xAI's ckpt-0"
HEADER_THREADS = 16
DEEP_THREADS = 2  # each holds a tensor in memory
HOLE_BYTES = 1 << 20  # no trained tensor has as many zeros in a row

CheckFile = Callable[[str, TensorSpec], None]


@dataclass(frozen=True)
class VerifyConfig:
    """Flags of jobs/verify_checkpoint.py.

    Raises:
        ConfigError: a flag is missing, or flags contradict each other.
    """

    checkpoint: str | None = flag(
        None, "folder or URL of the weights, in either layout; required", short="-i"
    )
    model: str = flag("grok-1", "grok-1, demo, or a path or URL of a JSON file of hyperparameters")
    deep: bool = flag(False, "read every byte: embedding, blocks of zeros, digests")
    digests: str | None = flag(
        None, "file or URL with lines 'sha256  file name' to compare with; needs --deep true"
    )

    def __post_init__(self) -> None:
        require_flags(self, ["checkpoint"])
        if self.digests and not self.deep:
            raise ConfigError("--digests needs --deep true: digests are of every byte")


@dataclass(frozen=True, order=True)
class Problem:
    """One fault of a checkpoint."""

    file: str
    tensor: str  # path of the parameter; empty where the file is not of this model
    message: str


def verify(
    url: str,
    config: ModelConfig,
    *,
    deep: bool = False,
    digests: Mapping[str, str] | None = None,
    hole_bytes: int = HOLE_BYTES,
) -> tuple[list[Problem], str]:
    """Checks the weights in a folder.

    Args:
        url: folder or URL.
        config: hyperparameters of the model that the weights must have.
        deep: read every byte.
        digests: {file name: sha256} to compare with; needs `deep`.
        hole_bytes: size of the blocks of zeros that count as a hole.

    Returns:
        The problems, sorted by file, and the name of the layout.

    Raises:
        ModelError: the folder does not exist, cannot be listed, or holds no weights.
    """
    with WeightFolder(url) as folder:
        sizes = folder.sizes()
        verifier = _Verifier(folder, sizes, config, deep, digests or {}, hole_bytes)
        if MANIFEST in sizes:
            return sorted(verifier.check_converted()), CONVERTED_LAYOUT

        if any(name.endswith(safetensors_layout.SUFFIX) for name in sizes):
            unfinished = Problem(
                MANIFEST,
                "",
                "missing: an unfinished conversion; run the same convert_checkpoint.py again",
            )
            return [unfinished], CONVERTED_LAYOUT

        if not xai_layout.tensor_files(sizes):
            raise ModelError(
                f"checkpoint {url}: no checkpoint, it holds neither tensor00000_000 … nor "
                f"{MANIFEST}"
            )
        return sorted(verifier.check_xai()), XAI_LAYOUT


@dataclass(frozen=True)
class _Verifier:
    folder: WeightFolder
    sizes: dict[str, int]
    config: ModelConfig
    deep: bool
    digests: Mapping[str, str]
    hole_bytes: int

    def check_xai(self) -> Iterator[Problem]:
        tensors = list(parameter_shapes(self.config))
        sizes = xai_layout.tensor_files(self.sizes)
        tensor_of_file: dict[str, TensorSpec] = {}
        for number, tensor in enumerate(tensors):
            tensor_of_file[xai_layout.file_name(number)] = tensor

        missing, extra = xai_layout.names_that_differ(sizes, tensors)
        for name in missing:
            tensor = tensor_of_file[name]
            yield Problem(name, tensor.path, f"missing, {tensor.stored_bytes:,} bytes and more")
        for name in extra:
            yield Problem(name, "", f"not of this model ({len(tensors)} tensors)")

        def check_file(name: str, tensor: TensorSpec) -> None:
            xai_layout.inspect(self.folder, name, sizes[name], tensor)
            if self.deep:
                self._check_xai_content(name, sizes[name], tensor)

        present = {name: tensor for name, tensor in tensor_of_file.items() if name in sizes}
        yield from self._check_files(present, check_file)
        if self.deep and self.digests:
            yield from self._files_without_digest(present)

    def _check_xai_content(self, name: str, size: int, tensor: TensorSpec) -> None:
        content = self.folder.read(name, 0, size)
        _check_digest(content, self.digests.get(name), name)

        value = parse(content.data, name)
        check_finite(tensor, cut(tensor, value, 1), name, deep=True)
        if isinstance(value, Int8Tensor):
            value = value.weight
        _check_holes(value, name, self.hole_bytes)

    def _files_without_digest(self, present: Mapping[str, TensorSpec]) -> Iterator[Problem]:
        for name, tensor in present.items():
            if name not in self.digests:
                yield Problem(name, tensor.path, "not in the file of digests")

    def check_converted(self) -> Iterator[Problem]:
        try:
            manifest = safetensors_layout.read_manifest(self.folder, self.sizes[MANIFEST])
        except ModelError as error:
            yield Problem(MANIFEST, "", _without_prefix(str(error), self.folder.url, MANIFEST))
            return

        tensor_of_file: dict[str, TensorSpec] = {}
        for tensor in parameter_shapes(self.config):
            tensor_of_file[safetensors_layout.file_name(tensor)] = tensor

        present = dict(tensor_of_file)
        for name, problem in safetensors_layout.listing_problems(self.sizes, manifest, self.config):
            path = ""
            if name in tensor_of_file:
                path = tensor_of_file[name].path
            present.pop(name, None)
            yield Problem(name, path, problem)

        def check_file(name: str, tensor: TensorSpec) -> None:
            size = self.sizes[name]
            safetensors_layout.check_header(self.folder, name, size, tensor, manifest.parts)
            if self.deep:
                content = self.folder.read(name, 0, size)
                _check_digest(content, manifest.files[name].sha256, name)
                _check_digest(content, self.digests.get(name), name)

        yield from self._check_files(present, check_file)

    def _check_files(
        self, tensors: Mapping[str, TensorSpec], check_file: CheckFile
    ) -> Iterator[Problem]:
        """Checks several files at a time; yields a problem for each ModelError."""
        progress = None
        threads = HEADER_THREADS
        if self.deep:
            progress = _progress(tensors.values())
            threads = DEEP_THREADS

        with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
            futures = {
                name: pool.submit(check_file, name, tensor) for name, tensor in tensors.items()
            }
            try:
                for name, future in futures.items():
                    tensor = tensors[name]
                    error = future.exception()
                    if isinstance(error, ModelError):
                        message = _without_prefix(str(error), self.folder.url, name)
                        yield Problem(name, tensor.path, message)
                    elif error is not None:
                        raise error
                    if progress is not None:
                        progress.add(tensor.stored_bytes, tensor.path)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _progress(tensors: Iterable[TensorSpec]) -> ByteProgress:
    return ByteProgress(sum(tensor.stored_bytes for tensor in tensors), "read")


def _without_prefix(message: str, url: str, name: str) -> str:
    """Returns a message without the name of the file, which has a column of its own."""
    return message.removeprefix(f"{url}/").removeprefix(f"{name}: ")


def _check_digest(content: np.ndarray, expected: str | None, name: str) -> None:
    if expected is None:
        return
    digest = hashlib.sha256(content.data).hexdigest()
    if digest != expected:
        raise ModelError(f"{name}: sha256 {digest}, expected {expected}; fetch or convert it again")


def _check_holes(values: np.ndarray, name: str, hole_bytes: int) -> None:
    """Raises ModelError where whole blocks are zero, as in a reserved but unfilled file."""
    content = values.reshape(-1).view(np.uint8)
    blocks = len(content) // hole_bytes

    holes = 0
    for block in content[: blocks * hole_bytes].reshape(blocks, hole_bytes):
        if not block.any():
            holes += 1
    if holes:
        raise ModelError(
            f"{name}: {holes} of {blocks} blocks of {hole_bytes:,} bytes are zero; an unfinished "
            "download, fetch it again"
        )


def read_digests(text: str, name: str) -> dict[str, str]:
    """Returns {file name: sha256} of lines as sha256sum writes them; folders are ignored.

    Raises:
        ConfigError: a line has another form, or there is no digest.
    """
    digests: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = re.fullmatch(r"([0-9a-fA-F]{64})\s+\*?(\S.*)", line.strip())
        if match:
            file_name = match[2].rsplit("/", 1)[-1]
            digests[file_name] = match[1].lower()
        elif line.strip() and not line.startswith("#"):
            raise ConfigError(
                f"--digests: {name}, line {number}: expected 'sha256  file name', got "
                f"{quoted(line[:80])}"
            )
    if not digests:
        raise ConfigError(f"--digests: {name} holds no digest")
    return digests
