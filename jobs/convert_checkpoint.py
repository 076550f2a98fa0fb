"""xAI's ckpt-0 → the converted layout: a safetensors file per tensor, cut for the devices of a mesh, and a manifest of digests.

    python jobs/convert_checkpoint.py --source ckpt-0 --target s3://models/grok-1-converted

Source and target are folders on disk or URLs (s3:// and others to read, s3:// to write). Files
appear whole and are never overwritten; the manifest comes last. A conversion that was killed
continues with the same command: files that are there are compared with the source, not written
again. Every file is read back and compared, number by number, unless --verify false.

Exit codes: 0 converted (or nothing to do); 2 bad arguments, or no checkpoint at the source; 75
interrupted, the same command continues; 1 anything else. Memory: about four tensors per worker, for
Grok-1 some 13 GB each.
"""

import hashlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

# started as a file, Python looks for modules in jobs/, not in the repository
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from actors.model.config import ModelConfig, TensorSpec, parameter_shapes
from actors.protocol.errors import ModelError
from actors.weights.pickle_reader import HostTensor, Int8Tensor
from actors.weights.safetensors_header import parse_header
from actors.weights.safetensors_layout import (
    ConvertedLayout,
    Manifest,
    StoredFile,
    file_name,
    listing_problems,
    pack,
    parts_of,
)
from actors.weights.weight_files import MANIFEST, WeightFolder
from actors.weights.weight_slices import cut
from actors.weights.xai_layout import XaiLayout
from jobs.cli.parser import flag, parse
from jobs.cli.weights_command import OK, ByteProgress, exit_code
from jobs.run.models import model_config
from pipeline import storage
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class ConvertConfig:
    """One run of jobs/convert_checkpoint.py.

    Raises:
        ConfigError: flags are missing or out of range.
    """

    source: str | None = flag(None, "folder or URL of xAI's ckpt-0; required", short="-i")
    target: str | None = flag(
        None,
        "folder or s3:// URL of the converted weights; made if it does not exist; required",
        short="-o",
    )
    model: str = flag("grok-1", "grok-1, demo, or a path or URL of a JSON file of hyperparameters")
    workers: int = flag(2, "tensors converted at a time")
    verify: bool = flag(True, "read every file back and compare all of its numbers with the source")

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            if not getattr(self, name):
                raise ConfigError(f"--{name} is missing; see --help")
        if self.workers < 1:
            raise ConfigError(f"--workers: expected at least 1, got {self.workers}")


@dataclass(frozen=True)
class _Conversion:
    """One conversion under way: where from, where to."""

    layout: XaiLayout
    target: WeightFolder
    present: dict[str, int]  # files of the target when it began
    parts: int
    verify: bool

    def one(self, number: int, tensor: TensorSpec) -> tuple[TensorSpec, StoredFile]:
        """Converts a tensor, or recognises that it is converted.

        Returns what the manifest says of it.
        """
        name = file_name(tensor)
        url = storage.join(self.target.url, name)
        value = self.layout.fetch(number, tensor, 1).joined(tensor)
        data = pack(tensor, value, self.parts)
        stored = StoredFile(len(data), hashlib.sha256(data).hexdigest())
        created = name not in self.present and storage.put_if_absent(url, data)
        del data
        if self.verify or not created:
            self._compare(name, tensor, value, stored, url)
        return tensor, stored

    def _compare(
        self, name: str, tensor: TensorSpec, value: HostTensor, stored: StoredFile, url: str
    ) -> None:
        """Reads the file back. Raises ModelError unless it holds exactly the source's tensor."""
        size = self.present.get(name, stored.size)
        if size != stored.size:
            raise ModelError(
                f"{url}: {size} bytes, expected {stored.size}; another conversion's file, delete "
                "it or take another --target"
            )
        whole = self.target.read(name, 0, size)
        same = hashlib.sha256(whole.data).hexdigest() == stored.sha256
        if not same or not _holds(whole, tensor, value, self.parts, url):
            raise ModelError(
                f"{url}: differs from {self.layout.folder.url}; damaged or of another source, "
                "delete it and convert again"
            )


def _holds(whole: np.ndarray, tensor: TensorSpec, value: HostTensor, parts: int, url: str) -> bool:
    """Whether a file, read without the code that wrote it, has the source's numbers."""
    arrays, _ = parse_header(whole[: min(len(whole), 1 << 17)].tobytes(), len(whole), url)
    slices = cut(tensor, value, parts)
    wanted = {f"values.{number}": part for number, part in enumerate(slices.values)}
    if isinstance(value, Int8Tensor):
        wanted["scales"] = value.scales
    if arrays.keys() != wanted.keys():
        return False
    for key, array in wanted.items():
        at = arrays[key]
        found = whole[at.start : at.end].view(at.dtype).reshape(at.shape)
        if at.dtype != array.dtype or at.shape != array.shape or found.tobytes() != array.tobytes():
            return False
    return True


def convert(
    source: str, target: str, config: ModelConfig, *, workers: int = 2, verify: bool = True
) -> Manifest:
    """Converts the weights of a model.

    Continues what a former call began. Returns the manifest that was written.

    Raises:
        ModelError: the source is no checkpoint of the model, or the target holds other weights.
        DatasetError: the target cannot be written.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(WeightFolder(source))
        layout = XaiLayout(folder, folder.sizes(), config)
        out = stack.enter_context(WeightFolder(target))
        present = {
            stored.url.rsplit("/", 1)[-1]: stored.size for stored in storage.list_objects(target)
        }
        if MANIFEST in present:
            return ConvertedLayout(out, present, config).manifest
        tensors = list(parameter_shapes(config))
        conversion = _Conversion(layout, out, present, parts_of(config), verify)
        manifest = Manifest(conversion.parts, _convert_all(conversion, tensors, workers))
        problems = listing_problems(out.sizes(), manifest, config)
        if problems:
            raise ModelError(
                f"{target}: {problems[0][0]}: {problems[0][1]}; take a --target of its own, or "
                "delete that file"
            )
        storage.put_if_absent(storage.join(target, MANIFEST), manifest.to_json())
        return manifest


def _convert_all(
    conversion: _Conversion, tensors: list[TensorSpec], workers: int
) -> dict[str, StoredFile]:
    progress = ByteProgress(sum(tensor.stored_bytes for tensor in tensors), "converted")
    files: dict[str, StoredFile] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="convert") as pool:
        waiting = [
            pool.submit(conversion.one, number, tensor) for number, tensor in enumerate(tensors)
        ]
        try:
            for done in as_completed(waiting):
                tensor, stored = done.result()
                files[file_name(tensor)] = stored
                progress.add(tensor.stored_bytes, tensor.path)
        finally:
            # tensors under way are finished: their files will be whole
            pool.shutdown(wait=True, cancel_futures=True)
    return files


def main(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code."""

    def work() -> int:
        config = parse(
            ConvertConfig, arguments, program="convert_checkpoint.py", description=str(__doc__)
        )
        source, target = str(config.source), str(config.target)
        model = model_config(config.model)
        try:
            with WeightFolder(source) as folder:
                XaiLayout(folder, folder.sizes(), model)
        except ModelError as error:
            raise ConfigError(str(error)) from error
        manifest = convert(source, target, model, workers=config.workers, verify=config.verify)
        total = sum(file.size for file in manifest.files.values())
        print(
            f"{target}: {len(manifest.files):,} tensors, {total / 1e9:,.2f} GB, {manifest.digest()}"
        )
        return OK

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
