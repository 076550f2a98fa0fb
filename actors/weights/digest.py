"""Digests a folder of weights, for the fingerprint of a run.

The safetensors layout brings the digests of its files in its manifest: every byte counts. Of other
folders every file's name and size, and its first, middle and last 4 KiB are taken, so that 300 GB
cost seconds: that recognises another or an incomplete checkpoint and does not prove that no byte
changed.
"""

import hashlib
from os import PathLike, fspath
from typing import Any

import fsspec

from actors.protocol.errors import ModelError
from actors.retries import RetryPolicy
from actors.weights.safetensors_layout import parse_manifest
from actors.weights.weight_files import MANIFEST, WEIGHT_RETRIES

SAMPLE_BYTES = 4096


def digest(url: str | PathLike[str], retries: RetryPolicy = WEIGHT_RETRIES) -> str:
    """Returns "sha256:…" over all files below a folder, or of one file.

    By the manifest if there is one, else by samples. Independent of where the folder lies and of
    the order in which it lists. Samples are read concurrently where the file system can (object
    stores).

    Raises:
        ModelError: the folder does not exist, is empty, cannot be read, or lacks files of its
            manifest.
    """
    try:
        files, root = fsspec.core.url_to_fs(fspath(url))
        files.invalidate_cache()
        entries = retries.with_retries(lambda: files.find(root, detail=True))
        sizes = {path: int(entry["size"]) for path, entry in entries.items()}
        if not sizes:
            raise ModelError(
                f"checkpoint {url}: no files there; give the folder that holds the weights"
            )
        manifest = f"{root.rstrip('/')}/{MANIFEST}"
        if manifest in sizes:
            text = retries.with_retries(lambda: files.cat_file(manifest))
            relative_sizes = {_relative(path, root): size for path, size in sizes.items()}
            return _manifest_digest(str(url), text, relative_sizes)
        return _sampled_digest(files, root, sizes, retries)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"checkpoint {url}: cannot be read ({error})") from error


def _manifest_digest(url: str, text: bytes, sizes: dict[str, int]) -> str:
    manifest = parse_manifest(text, f"{url}/{MANIFEST}")
    for name, file in sorted(manifest.files.items()):
        if sizes.get(name) != file.size:
            actual_size = f"{sizes[name]} bytes" if name in sizes else "no such file"
            raise ModelError(
                f"{url}/{name}: expected {file.size} bytes by {MANIFEST}, got {actual_size}; copy "
                "or convert it again"
            )
    return manifest.digest()


def _sampled_digest(files: Any, root: str, sizes: dict[str, int], retries: RetryPolicy) -> str:
    paths: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for path in sorted(sizes):
        for start, end in _samples(sizes[path]):
            paths.append(path)
            starts.append(start)
            ends.append(end)

    pieces = retries.with_retries(lambda: files.cat_ranges(paths, starts, ends, on_error="raise"))
    total = hashlib.sha256()
    for path in sorted(sizes):
        total.update(f"{_relative(path, root)}\0{sizes[path]}\0".encode())
    for start, end, piece in zip(starts, ends, pieces, strict=True):
        total.update(f"{start}-{end}\0".encode() + piece)
    return f"sha256:{total.hexdigest()}"


def _relative(path: str, root: str) -> str:
    return path.removeprefix(root).lstrip("/") or path.rsplit("/", 1)[-1]


def _samples(size: int) -> list[tuple[int, int]]:
    """Returns the byte ranges to read of a file: a small one completely, else three samples."""
    if size <= 3 * SAMPLE_BYTES:
        return [(0, size)] if size else []
    middle = size // 2
    return [(0, SAMPLE_BYTES), (middle, middle + SAMPLE_BYTES), (size - SAMPLE_BYTES, size)]
