"""Folder of weights -> a short text that changes when the weights do, for the fingerprint of a run.

Samples: every file's name and size, and its first, middle and last 4 KiB, so that 300 GB cost seconds. It recognises another
or an incomplete checkpoint; it does not prove that no byte changed. Knows nothing of formats; imports no JAX.
"""

import hashlib
from os import PathLike, fspath

import fsspec

from actors.errors import ModelError

SAMPLE_BYTES = 4096


def digest(url: str | PathLike[str]) -> str:
    """Returns "sha256:…" over the names, sizes and samples of all files below a folder, or of one file.

    Independent of where the folder lies and of the order in which it lists. Samples are read concurrently where the file
    system can (object stores).

    Raises:
        ModelError: the folder does not exist, is empty, or cannot be read.
    """
    try:
        files, root = fsspec.core.url_to_fs(fspath(url))
        sizes = {path: int(entry["size"]) for path, entry in files.find(root, detail=True).items()}
        if not sizes:
            raise ModelError(f"checkpoint {url}: no files there; give the folder that holds the weights")
        wanted = [(path, start, end) for path in sorted(sizes) for start, end in _samples(sizes[path])]
        paths, starts, ends = map(list, zip(*wanted, strict=True)) if wanted else ([], [], [])
        pieces = files.cat_ranges(paths, starts, ends, on_error="raise")
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"checkpoint {url}: cannot be read ({error})") from error
    total = hashlib.sha256()
    for path in sorted(sizes):
        name = path.removeprefix(root).lstrip("/") or path.rsplit("/", 1)[-1]
        total.update(f"{name}\0{sizes[path]}\0".encode())
    for (_, start, end), piece in zip(wanted, pieces, strict=True):
        total.update(f"{start}-{end}\0".encode() + piece)
    return f"sha256:{total.hexdigest()}"


def _samples(size: int) -> list[tuple[int, int]]:
    """Returns the byte ranges to read of a file: all of a small one, else beginning, middle and end."""
    if size <= 3 * SAMPLE_BYTES:
        return [(0, size)] if size else []
    middle = size // 2
    return [(0, SAMPLE_BYTES), (middle, middle + SAMPLE_BYTES), (size - SAMPLE_BYTES, size)]
