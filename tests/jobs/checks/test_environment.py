"""environment.py: what it shows of folders, clusters and credentials, and what a failure names."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.protocol.errors import GrokBatchError
from jobs.checks.environment import machine, object_stores, program_cache, ray_cluster
from jobs.checks.smoke import SmokeError
from jobs.cluster.address import ClusterConfigError
from tests.shared_ray import free_ports


def test_machine_shows_memory_and_free_space(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 24000000 kB\nMemAvailable: 12000000 kB\n")
    lines = list(machine({"RAY_TMPDIR": str(tmp_path)}, meminfo))
    assert lines[0] == f"{os.cpu_count()} cores, 24.6 GB of memory, 12.3 GB available"
    assert lines[2].startswith(f"folder of a local Ray {tmp_path}: ")


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("", "RAY_ADDRESS is not set"),
        ("local", "RAY_ADDRESS=local: a run starts its own Ray"),
    ],
)
def test_ray_cluster_names_the_ray_of_a_run(address: str, line: str) -> None:
    assert next(ray_cluster({"RAY_ADDRESS": address})).startswith(line)


def test_ray_cluster_that_does_not_answer_is_an_error() -> None:
    [port] = free_ports(1)
    with pytest.raises(SmokeError, match=f"no Ray cluster answers at RAY_ADDRESS=127.0.0.1:{port}"):
        list(ray_cluster({"RAY_ADDRESS": f"127.0.0.1:{port}"}))
    with pytest.raises(ClusterConfigError, match="is the URL of a dashboard"):
        list(ray_cluster({"RAY_ADDRESS": "http://127.0.0.1:8265"}))


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"AWS_ACCESS_KEY_ID": "k"}, "s3://: a key in the environment (AWS_ACCESS_KEY_ID)"),
        ({"AWS_PROFILE": "p"}, "s3://: a profile of the AWS configuration (AWS_PROFILE)"),
        ({}, "s3://: no credentials in the environment or in ~/.aws; "),
        (
            {"AWS_ACCESS_KEY_ID": "k", "AWS_ENDPOINT_URL": "http://user:secret@store:9000"},
            "s3://: a key in the environment (AWS_ACCESS_KEY_ID), endpoint http://",
        ),
    ],
)
def test_object_stores_name_the_source_of_credentials(
    variables: dict[str, str], line: str, tmp_path: Path
) -> None:
    first = next(object_stores(variables, None, tmp_path))
    assert first.startswith(line)
    assert "secret" not in first


def test_object_stores_list_a_url(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").touch()
    *_, last = object_stores({}, str(tmp_path), tmp_path)
    assert last == f"{tmp_path}: 1 objects are listed"
    with pytest.raises((SmokeError, GrokBatchError)):
        list(object_stores({}, str(tmp_path / "absent"), tmp_path))


def last_line(lines: Iterator[str]) -> str:
    *_, last = lines
    return last


def test_program_cache_counts_its_files(tmp_path: Path) -> None:
    (tmp_path / "jit_step-cache").write_bytes(b"x" * 10_000_000)
    shown = last_line(program_cache({"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}))
    assert shown == f"{tmp_path}: 1 files, 0.01 GB"
    absent = tmp_path / "new" / "folder"
    assert last_line(program_cache({"JAX_COMPILATION_CACHE_DIR": str(absent)})) == (
        f"{absent}: 0 files, 0.00 GB"
    )


def test_program_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SmokeError, match="so every run compiles its programs again"):
        list(program_cache({"JAX_COMPILATION_CACHE_DIR": str(file / "cache")}))
