"""compile_cache.py: which folder is used, and its copy on a real S3 server."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import jax
import pytest

from actors.compile_cache import SOURCE_PATH_PREFIX, CompileCache, compile_cache, configure_jax
from actors.protocol.errors import ModelError

REPOSITORY = Path(__file__).parents[2]


def write_program(cache: CompileCache, name: str) -> None:
    cache.folder.mkdir(parents=True, exist_ok=True)
    (cache.folder / f"{name}-cache").write_bytes(name.encode())


@pytest.mark.parametrize("place", ["/caches/jax", "file:///caches/jax"])
def test_cache_in_a_folder_is_used_as_it_is(place: str) -> None:
    cache = compile_cache({"JAX_COMPILATION_CACHE_DIR": place})
    assert (cache.folder, cache.url) == (Path("/caches/jax"), None)


def test_cache_without_a_place_is_a_folder_of_the_user() -> None:
    assert compile_cache({}).folder == Path.home() / ".cache" / "grok-batch" / "jax"
    cache = compile_cache({"XDG_CACHE_HOME": "/xdg"})
    assert (cache.folder, cache.url) == (Path("/xdg/grok-batch/jax"), None)


def test_caches_at_two_urls_have_folders_of_their_own() -> None:
    environment = {"XDG_CACHE_HOME": "/xdg"}
    first = compile_cache(environment | {"JAX_COMPILATION_CACHE_DIR": "s3://bucket/jax/"})
    second = compile_cache(environment | {"JAX_COMPILATION_CACHE_DIR": "s3://other/jax"})
    assert first.url == "s3://bucket/jax"
    assert first.folder.parent == second.folder.parent == Path("/xdg/grok-batch/jax")
    assert first.folder != second.folder


def test_programs_reach_another_machine_through_s3(s3_url: str, tmp_path: Path) -> None:
    url = f"{s3_url}/cluster/jax"
    first = CompileCache(tmp_path / "first", url)
    first.download()
    write_program(first, "prefill")
    (first.folder / "prefill-atime").write_bytes(b"of JAX's own eviction")
    first.upload()

    second = CompileCache(tmp_path / "second", url)
    write_program(second, "decode")
    second.download()
    second.upload()
    assert sorted(path.name for path in second.folder.iterdir()) == [
        "decode-cache",
        "prefill-cache",
    ]
    assert (second.folder / "prefill-cache").read_bytes() == b"prefill"
    files, root = fsspec.core.url_to_fs(url)
    names = [path.rpartition("/")[2] for path in files.ls(root, detail=False, refresh=True)]
    assert sorted(names) == ["decode-cache", "prefill-cache"]


def test_folder_is_cut_to_its_limit_by_last_use(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path, max_bytes=12)
    for age_s, name in enumerate(("newest", "middle", "oldest")):
        write_program(cache, name)
        program = tmp_path / f"{name}-cache"
        os.utime(program, (1e9 - age_s, 1e9 - age_s))
    (tmp_path / "other").write_bytes(bytes(100))
    cache.evict()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "middle-cache",
        "newest-cache",
        "other",
    ]
    os.utime(tmp_path / "middle-cache", (2e9, 1e9))  # it was read
    CompileCache(tmp_path, max_bytes=6).evict()
    assert sorted(path.name for path in tmp_path.glob("*-cache")) == ["middle-cache"]
    CompileCache(tmp_path, max_bytes=None).evict()
    assert (tmp_path / "middle-cache").exists()


def test_limit_of_the_folder_is_a_number_of_bytes() -> None:
    assert compile_cache({}).max_bytes == 10 << 30
    assert compile_cache({"JAX_COMPILATION_CACHE_MAX_SIZE": "5"}).max_bytes == 5
    assert compile_cache({"JAX_COMPILATION_CACHE_MAX_SIZE": "-1"}).max_bytes is None
    with pytest.raises(ModelError, match="JAX_COMPILATION_CACHE_MAX_SIZE: expected a number"):
        compile_cache({"JAX_COMPILATION_CACHE_MAX_SIZE": "10GB"})


def test_url_that_cannot_be_reached_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = CompileCache(tmp_path, "nowhere://bucket/jax")
    write_program(cache, "decode")
    with caplog.at_level(logging.WARNING):
        cache.download()
        cache.upload()
    (message,) = caplog.messages
    assert "JAX_COMPILATION_CACHE_DIR: the URL cannot be reached" in message
    assert str(tmp_path) in message


def test_jax_keeps_every_program_in_a_private_folder(tmp_path: Path) -> None:
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_enable_xla_caches",
        "jax_hlo_source_file_canonicalization_regex",
        "jax_compilation_cache_max_size",
    )
    before = {name: getattr(jax.config, name) for name in names}
    folder = tmp_path / "new"
    try:
        configure_jax(CompileCache(folder), {})
        configured = {name: getattr(jax.config, name) for name in names}
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    expected = (str(folder), 0.0, "none", SOURCE_PATH_PREFIX, -1)
    assert configured == dict(zip(names, expected, strict=True))
    assert folder.stat().st_mode & 0o777 == 0o700


PRINT_KEYS = """
import os, pathlib, sys
from actors.compile_cache import compile_cache, configure_jax
import jax
cache = compile_cache(os.environ)
configure_jax(cache, os.environ)
jax.jit(lambda x: x * 2 + 1)(jax.numpy.ones(7)).block_until_ready()
print(*sorted(path.name for path in cache.folder.glob("*-cache")))
"""


def test_keys_do_not_depend_on_the_folder_of_the_cache(tmp_path: Path) -> None:
    """Or a program would not be found by the machines that share the URL."""
    keys: list[str] = []
    for folder in ("first", "second"):
        environment = {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / folder),
            "PYTHONPATH": str(REPOSITORY),
        }
        command = [sys.executable, "-c", PRINT_KEYS]
        output = subprocess.check_output(command, env=environment, text=True, timeout=120)
        keys.append(output)
    assert "-cache" in keys[0]
    assert keys[0] == keys[1]
