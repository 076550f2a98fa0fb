import dataclasses
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from jobs.run.description import LIBRARIES, describe, describe_run, redacted, run_description
from jobs.run.plan import ROOT
from pipeline.records import InputFile
from tests.jobs.run.plans import PROMPT, demo_plan


@dataclasses.dataclass(frozen=True)
class Config:
    checkpoint: str
    shard_rows: int


def test_run_description_redacts_credentials_of_config_and_input() -> None:
    config = Config("s3://key:secret@bucket/ckpt-0", 10)
    files = [InputFile("s3://key:secret@bucket/rows.parquet", 100, "etag", 7)]

    description = describe_run(config, files, shards=3)

    assert description["config"] == {"checkpoint": "s3://bucket/ckpt-0", "shard_rows": 10}
    assert description["input"] == [
        {"url": "s3://bucket/rows.parquet", "size": 100, "version": "etag", "rows": 7}
    ]
    assert description["shards"] == 3


def test_run_description_has_the_versions_of_python_and_libraries() -> None:
    versions = describe_run(Config("", 1), [], shards=0)["versions"]

    assert set(versions) == {"python", "grok-batch", *LIBRARIES}
    assert versions["python"] == platform.python_version()
    assert versions["pyarrow"] == metadata.version("pyarrow")


def test_run_description_counts_shards_of_all_partitions(tmp_path: Path) -> None:
    plan = demo_plan(tmp_path, [PROMPT] * 5, shard_rows=2, partition="0/2")

    assert run_description(plan)["shards"] == 3


def test_git_commit_is_that_of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    monkeypatch.setenv("GROK_BATCH_COMMIT", "from the environment")
    expected = process.stdout.strip() or "from the environment"

    assert describe_run(Config("", 1), [], shards=0)["git_commit"] == expected


def test_git_commit_without_git_is_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GROK_BATCH_COMMIT", "abc123")
    assert describe_run(Config("", 1), [], shards=0)["git_commit"] == "abc123"

    monkeypatch.setenv("GROK_BATCH_COMMIT", "")
    assert describe_run(Config("", 1), [], shards=0)["git_commit"] is None


def test_terminal_description_counts_the_own_partition(tmp_path: Path) -> None:
    description = describe(demo_plan(tmp_path, [PROMPT] * 5, shard_rows=2, partition="0/2"))

    source = tmp_path / "rows.jsonl"
    assert description["input"] == f"{source}: 3 rows in 2 shards"
    assert description["model"] == "demo"
    assert description["task"] == "generate"


def test_redacted_reaches_nested_strings_only() -> None:
    value = {"urls": ("s3://a:b@bucket", 1), "nested": {"url": "s3://a:b@bucket"}, "flag": True}

    assert redacted(value) == {
        "urls": ["s3://bucket", 1],
        "nested": {"url": "s3://bucket"},
        "flag": True,
    }
