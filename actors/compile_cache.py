"""JAX's persistent cache of compiled programs: a folder of this machine, and its copy at a URL.

JAX reads and writes local folders only (an object store would need etils, and XLA's own caches
refuse URLs), so programs are copied between the folder and the URL here:

    start of a replica       URL ── programs that the folder lacks ──▶ folder, cut to its limit
    after a batch         folder ── programs that the URL lacks ─────▶ URL

A file is complete or absent on both sides, and its name is the digest of what it was compiled from:
replicas that compile the same program at once write the same file. A cache that cannot be reached
costs time, not the run; it is logged once.
"""

import contextlib
import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import botocore.exceptions as aws
import fsspec

from actors.protocol.errors import ModelError
from actors.protocol.plain_text import quoted
from actors.retries import RetryPolicy, no_response_errors

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
MIN_SECONDS_VARIABLE = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
SOURCE_PATH_VARIABLE = "JAX_HLO_SOURCE_FILE_CANONICALIZATION_REGEX"
# Kernels of GPUs name their source files, and a Ray job's code lies in a new folder each time:
# without what stands before actors/, keys do not depend on the folder.
SOURCE_PATH_PREFIX = r".*/(?=actors/)"
# XLA's own caches lie in the folder, and a key covers their path: without them, machines with other
# folders share programs. Autotuning results are part of the programs.
XLA_CACHES_VARIABLE = "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"
MAX_SIZE_VARIABLE = "JAX_COMPILATION_CACHE_MAX_SIZE"
DEFAULT_MAX_BYTES = 10 << 30  # some 400 programs of Grok-1
PROGRAM_SUFFIX = "-cache"  # of the files in which JAX keeps programs
PARALLEL_COPIES = 8
RETRIES = RetryPolicy(retry_window_s=20.0)
UNREACHABLE = (OSError, ImportError, ValueError, aws.BotoCoreError, aws.ClientError)

_LOG = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class CompileCache:
    """Where this process keeps compiled programs.

    Attributes:
        folder: folder of this machine that JAX reads and writes.
        url: object store that other machines share, None where there is none.
        max_bytes: size to which `evict` cuts the folder; None: no limit.
    """

    folder: Path
    url: str | None = None
    max_bytes: int | None = DEFAULT_MAX_BYTES
    _at_url: set[str] = field(default_factory=set)  # names of programs
    _is_reachable: bool = True
    _copying: threading.Lock = field(default_factory=threading.Lock)

    def download(self) -> None:
        """Copies the programs that the folder lacks from the URL."""
        self._copy(self._download)

    def evict(self) -> None:
        """Removes the programs that were read longest ago until the folder is within its limit.

        JAX's own eviction needs a file beside each program that copies do not have, and locks the
        folder for every read.
        """
        if self.max_bytes is None:
            return
        programs: list[tuple[float, int, Path]] = []
        for path in self.folder.glob(f"*{PROGRAM_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another replica evicts, too
                status = path.stat()
                last_use_s = max(status.st_atime, status.st_mtime)
                programs.append((last_use_s, status.st_size, path))

        excess_bytes = sum(size for _, size, _ in programs) - self.max_bytes
        for _, size, path in sorted(programs):
            if excess_bytes <= 0:
                break
            path.unlink(missing_ok=True)
            excess_bytes -= size

    def upload(self) -> None:
        """Copies the programs that the URL lacks to it; returns at once while another call does."""
        self._copy(self._upload)

    def _copy(self, copy: Callable[[str], None]) -> None:
        """Runs a copy unless there is no URL, or it could not be reached before."""
        if self.url is None or not self._is_reachable or not self._copying.acquire(blocking=False):
            return
        try:
            copy(self.url)
        except (*UNREACHABLE, *no_response_errors()) as error:
            self._is_reachable = False
            _LOG.warning(
                "%s: the URL cannot be reached, so compiled programs are not shared; this run "
                "keeps them in %s (%s: %s)",
                VARIABLE,
                self.folder,
                type(error).__name__,
                error,
            )
        finally:
            self._copying.release()

    def _download(self, url: str) -> None:
        files, root = fsspec.core.url_to_fs(url)
        self._at_url = RETRIES.with_retries(lambda: _programs_at(files, root))

        def fetch(name: str) -> None:
            content = RETRIES.with_retries(lambda: files.cat_file(f"{root}/{name}"))
            _write_file(self.folder / name, content)

        _run_in_threads(fetch, self._at_url - _programs_in(self.folder))

    def _upload(self, url: str) -> None:
        new_programs = _programs_in(self.folder) - self._at_url
        if not new_programs:
            return
        files, root = fsspec.core.url_to_fs(url)

        def send(name: str) -> None:
            content = (self.folder / name).read_bytes()
            RETRIES.with_retries(lambda: files.pipe_file(f"{root}/{name}", content))
            self._at_url.add(name)

        _run_in_threads(send, new_programs)


def compile_cache(environment: Mapping[str, str]) -> CompileCache:
    """Returns the cache that the environment names: a folder, a URL, or none: the user's folder.

    Raises:
        ModelError: the size limit is not a number.
    """
    max_bytes = _max_bytes(environment)
    place = environment.get(VARIABLE, "")
    if place.startswith("file://"):
        place = place.removeprefix("file://")
    if place and "://" not in place:
        return CompileCache(Path(place), None, max_bytes)

    user_caches = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    programs = Path(user_caches, "grok-batch", "jax")
    if not place:
        return CompileCache(programs, None, max_bytes)
    url = place.rstrip("/")
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    return CompileCache(programs / digest, url, max_bytes)


def _max_bytes(environment: Mapping[str, str]) -> int | None:
    text = environment.get(MAX_SIZE_VARIABLE, str(DEFAULT_MAX_BYTES))
    try:
        max_bytes = int(text)
    except ValueError:
        raise ModelError(
            f"{MAX_SIZE_VARIABLE}: expected a number of bytes, or -1 for no limit, got "
            f"{quoted(text)}"
        ) from None
    return max_bytes if max_bytes >= 0 else None


def configure_jax(cache: CompileCache, environment: Mapping[str, str]) -> None:
    """Makes JAX use the cache for every program, unless the environment sets another threshold."""
    import jax

    try:
        # Programs are code that this user will run: nobody else may write them.
        cache.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache.folder):
            pass
    except OSError as error:
        _LOG.warning("compiled programs are not kept: %s cannot be written: %s", VARIABLE, error)
        jax.config.update("jax_enable_compilation_cache", False)
        return

    jax.config.update("jax_compilation_cache_dir", str(cache.folder))
    jax.config.update("jax_compilation_cache_max_size", -1)  # see `CompileCache.evict`
    if MIN_SECONDS_VARIABLE not in environment:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if XLA_CACHES_VARIABLE not in environment:
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    if SOURCE_PATH_VARIABLE not in environment:
        jax.config.update("jax_hlo_source_file_canonicalization_regex", SOURCE_PATH_PREFIX)


def _programs_in(folder: Path) -> set[str]:
    return {path.name for path in folder.glob(f"*{PROGRAM_SUFFIX}")}


def _programs_at(files: fsspec.AbstractFileSystem, root: str) -> set[str]:
    try:
        paths = files.ls(root, detail=False, refresh=True)
    except FileNotFoundError:
        return set()
    names = {path.rpartition("/")[2] for path in paths}
    return {name for name in names if name.endswith(PROGRAM_SUFFIX)}


def _write_file(path: Path, content: bytes) -> None:
    """Writes a file in one step: JAX of another process may read the folder meanwhile."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
        temporary.write(content)
    os.replace(temporary.name, path)


def _run_in_threads(task: Callable[[str], None], names: set[str]) -> None:
    """Runs a task for every name; raises the first failure."""
    with ThreadPoolExecutor(PARALLEL_COPIES) as threads:
        for future in [threads.submit(task, name) for name in sorted(names)]:
            future.result()
