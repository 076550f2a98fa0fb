"""A folder of weights → a table of what is wrong with it, before any GPU is rented.

    python jobs/verify_checkpoint.py --checkpoint ckpt-0
    python jobs/verify_checkpoint.py --checkpoint s3://models/grok-1-converted --deep true

Told apart by itself: xAI's ckpt-0, or the converted layout with its manifest. Without --deep:
names, sizes, shapes, types, of ckpt-0 also NaN or infinity in norms, routers and scales; the int8
numbers are not read, 770 files take seconds. With --deep every byte is read: NaN or infinity in the
embedding, holes of zeros that an unfinished download leaves, and the digests of the manifest or of
--digests FILE (lines as sha256sum writes them).

Exit codes: 0 nothing wrong; 1 something is; 2 bad arguments, or no checkpoint there; 75
interrupted.
"""

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from rich.console import Console
from rich.table import Table

from actors.model.config import ModelConfig, TensorSpec, parameter_shapes
from actors.protocol.errors import ModelError
from actors.weights import safetensors_layout as converted
from actors.weights import xai_layout
from actors.weights.pickle_reader import Int8Tensor, parse
from actors.weights.weight_files import MANIFEST, WeightFolder
from actors.weights.weight_slices import check_finite, cut
from jobs.cli.parser import flag
from jobs.cli.parser import parse as parse_flags
from jobs.cli.weights_command import FAILED, OK, ByteProgress, exit_code
from jobs.run.models import model_config
from pipeline import storage
from pipeline.errors import ConfigError

_HEADERS_AT_ONCE = 16
_DEEP_AT_ONCE = 2  # whole tensors in memory
_HOLE_BYTES = 1 << 20  # of zeros: no trained weights have so many in a row


@dataclass(frozen=True)
class VerifyConfig:
    """One run of jobs/verify_checkpoint.py.

    Raises:
        ConfigError: flags are missing or contradict each other.
    """

    checkpoint: str | None = flag(
        None, "folder or URL of the weights, in either layout; required", short="-i"
    )
    model: str = flag("grok-1", "grok-1, demo, or a path or URL of a JSON file of hyperparameters")
    deep: bool = flag(False, "read every byte: embedding, holes of zeros, digests")
    digests: str | None = flag(
        None, "file or URL with lines 'sha256  file name' to compare with; needs --deep true"
    )

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise ConfigError("--checkpoint is missing; see --help")
        if self.digests and not self.deep:
            raise ConfigError("--digests needs --deep true: digests are of every byte")


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong."""

    file: str
    tensor: str
    what: str


def verify(
    url: str, config: ModelConfig, *, deep: bool = False, digests: dict[str, str] | None = None
) -> tuple[list[Problem], str]:
    """Returns what is wrong with the weights in a folder, sorted by file, and what the folder is, in words.

    Raises:
        ModelError: there is no such folder, it cannot be listed, or it holds no weights at all.
    """
    with WeightFolder(url) as folder:
        sizes = folder.sizes()
        if MANIFEST in sizes:
            return sorted(
                _converted(folder, sizes, config, deep, digests or {})
            ), "converted layout"
        if any(name.endswith(converted.SUFFIX) for name in sizes):
            unfinished = Problem(
                MANIFEST,
                "",
                "missing: an unfinished conversion; run the same convert_checkpoint.py again",
            )
            return [unfinished], "converted layout"
        if not xai_layout.tensor_files(sizes):
            raise ModelError(
                f"checkpoint {url}: no checkpoint, it holds neither tensor00000_000 … nor "
                f"{MANIFEST}"
            )
        return sorted(_xai(folder, sizes, config, deep, digests or {})), "xAI's ckpt-0"


def _xai(
    folder: WeightFolder,
    sizes: dict[str, int],
    config: ModelConfig,
    deep: bool,
    digests: dict[str, str],
) -> Iterator[Problem]:
    tensors = list(parameter_shapes(config))
    found = xai_layout.tensor_files(sizes)
    missing, extra = xai_layout.names_that_differ(found, tensors)
    named = {xai_layout.file_name(number): tensor for number, tensor in enumerate(tensors)}
    yield from (
        Problem(name, named[name].path, f"missing, {named[name].stored_bytes:,} bytes and more")
        for name in missing
    )
    yield from (Problem(name, "", f"not of this model ({len(tensors)} tensors)") for name in extra)
    present = {name: tensor for name, tensor in named.items() if name in found}

    def look(name: str, tensor: TensorSpec) -> None:
        xai_layout.inspect(folder, name, found[name], tensor)
        if deep:
            _deep_xai(folder, name, found[name], tensor, digests.get(name))

    yield from _each(present, look, deep, folder.url)
    if deep:
        yield from (
            Problem(name, present[name].path, "not in the file of digests")
            for name in present
            if digests and name not in digests
        )


def _deep_xai(
    folder: WeightFolder, name: str, size: int, tensor: TensorSpec, digest: str | None
) -> None:
    whole = folder.read(name, 0, size)
    _check_digest(whole, digest, name)
    value = parse(whole.data, name)
    check_finite(tensor, cut(tensor, value, 1), name, deep=True)
    _check_holes(value.weight if isinstance(value, Int8Tensor) else value, name)


def _converted(
    folder: WeightFolder,
    sizes: dict[str, int],
    config: ModelConfig,
    deep: bool,
    digests: dict[str, str],
) -> Iterator[Problem]:
    try:
        manifest = converted.read_manifest(folder, sizes[MANIFEST])
    except ModelError as error:
        yield Problem(MANIFEST, "", _without(str(error), folder.url, MANIFEST))
        return
    named = {converted.file_name(tensor): tensor for tensor in parameter_shapes(config)}
    listed = converted.listing_problems(sizes, manifest, config)
    yield from (
        Problem(name, named[name].path if name in named else "", what) for name, what in listed
    )
    wrong = {name for name, _ in listed}
    present = {name: tensor for name, tensor in named.items() if name not in wrong}

    def look(name: str, tensor: TensorSpec) -> None:
        converted.check_header(folder, name, sizes[name], tensor, manifest.parts)
        if deep:
            whole = folder.read(name, 0, sizes[name])
            _check_digest(whole, manifest.files[name].sha256, name)
            _check_digest(whole, digests.get(name), name)

    yield from _each(present, look, deep, folder.url)


def _each(
    tensors: dict[str, TensorSpec], look: Callable[[str, TensorSpec], None], deep: bool, url: str
) -> Iterator[Problem]:
    """Looks at files, several at a time; yields what `look` raises."""
    progress = (
        ByteProgress(sum(tensor.stored_bytes for tensor in tensors.values()), "read")
        if deep
        else None
    )
    with ThreadPoolExecutor(
        _DEEP_AT_ONCE if deep else _HEADERS_AT_ONCE, thread_name_prefix="verify"
    ) as pool:
        looks = [
            (name, tensor, pool.submit(look, name, tensor)) for name, tensor in tensors.items()
        ]
        try:
            for name, tensor, future in looks:
                error = future.exception()
                if isinstance(error, ModelError):
                    yield Problem(name, tensor.path, _without(str(error), url, name))
                elif error is not None:
                    raise error
                if progress is not None:
                    progress.add(tensor.stored_bytes, tensor.path)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _without(message: str, url: str, name: str) -> str:
    return message.removeprefix(f"{url}/").removeprefix(f"{name}: ")


def _check_digest(whole: np.ndarray, expected: str | None, name: str) -> None:
    if expected is None:
        return
    found = hashlib.sha256(whole.data).hexdigest()
    if found != expected:
        raise ModelError(f"{name}: sha256 {found}, expected {expected}; fetch or convert it again")


def _check_holes(values: np.ndarray, name: str) -> None:
    """Raises ModelError where whole blocks are zero: what a file that was reserved but not filled looks like."""
    flat = values.reshape(-1).view(np.uint8)
    blocks = len(flat) // _HOLE_BYTES
    words = flat[: blocks * _HOLE_BYTES].reshape(blocks, _HOLE_BYTES)
    holes = sum(1 for block in words if not block.any())
    if holes:
        raise ModelError(
            f"{name}: {holes} of {blocks} blocks of {_HOLE_BYTES:,} bytes are zero; an unfinished "
            "download, fetch it again"
        )


def read_digests(text: str, name: str) -> dict[str, str]:
    """Returns {file name: sha256} of lines as sha256sum writes them.

    Folders before the names are ignored.

    Raises:
        ConfigError: a line is none.
    """
    digests = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = re.fullmatch(r"([0-9a-fA-F]{64})\s+\*?(\S.*)", line.strip())
        if match:
            digests[match[2].rsplit("/", 1)[-1]] = match[1].lower()
        elif line.strip() and not line.startswith("#"):
            raise ConfigError(
                f"--digests: {name}, line {number}: expected 'sha256  file name', got {line[:80]!r}"
            )
    if not digests:
        raise ConfigError(f"--digests: {name} holds no digest")
    return digests


def main(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code."""

    def work() -> int:
        config = parse_flags(
            VerifyConfig, arguments, program="verify_checkpoint.py", description=str(__doc__)
        )
        url, model = str(config.checkpoint), model_config(config.model)
        digests = (
            read_digests(storage.read(config.digests)[0].decode(errors="replace"), config.digests)
            if config.digests
            else None
        )
        try:
            problems, layout = verify(url, model, deep=config.deep, digests=digests)
        except ModelError as error:
            raise ConfigError(str(error)) from error
        _print(problems, url, layout, model)
        return FAILED if problems else OK

    return exit_code(work)


def _print(problems: list[Problem], url: str, layout: str, model: ModelConfig) -> None:
    shapes = parameter_shapes(model)
    head = (
        f"{url}: {layout}, {len(shapes):,} tensors, {shapes.stored_bytes / 1e9:,.2f} GB of numbers"
    )
    if not problems:
        print(f"{head}: nothing wrong")
        return
    table = Table(
        "file",
        "tensor",
        "problem",
        title=f"{head}: {len(problems):,} problems",
        title_justify="left",
    )
    for problem in problems:
        table.add_row(problem.file, problem.tensor, problem.what)
    Console(width=None if sys.stdout.isatty() else 200).print(table, markup=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
