"""Describes a run: what run.json stores beside the fingerprint, and the lines on the terminal."""

import dataclasses
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from types import MappingProxyType
from typing import Any

from actors.protocol.version import VERSION
from jobs.run.plan import ROOT, Plan
from pipeline.input.listing import SkippedFile
from pipeline.output.input_content import DIGEST_KEY
from pipeline.records import InputFile
from pipeline.storage.redaction import redact_credentials

LIBRARIES = (
    "ray",
    "jax",
    "dm-haiku",
    "numpy",
    "pyarrow",
    "sentencepiece",
    "fsspec",
    "s3fs",
    "jinja2",
    "rensa",
)
MAX_SKIPPED_FILES = 1000  # that run.json names
GIT_TIMEOUT_S = 10.0


def run_description(
    plan: Plan, digests: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Returns what run.json stores beside the fingerprint: configuration, versions, commit, input.

    Credentials in URLs are removed. `digests` as in `describe_run`.
    """
    return describe_run(plan.config, plan.files, len(plan.shards), plan.skipped, digests)


def describe_run(
    config: Any,
    files: Iterable[InputFile],
    shards: int,
    skipped: Sequence[SkippedFile] = (),
    digests: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Returns the description of a run for run.json.

    Args:
        config: configuration, a dataclass.
        files: the input.
        shards: number of shards of all partitions.
        skipped: files of the input that are not read.
        digests: of the content of files, by URL, as far as there are any.
    """
    versions: dict[str, str | None] = {"python": platform.python_version()}
    versions["grok-batch"] = VERSION
    for name in LIBRARIES:
        versions[name] = _version(name)

    listing: list[dict[str, Any]] = []
    for file in files:
        url = redacted(file.url)
        entry = {"url": url, "size": file.size, "version": file.version, "rows": file.rows}
        if url in digests:
            entry[DIGEST_KEY] = digests[url]
        listing.append(entry)
    skipped_files: list[dict[str, str]] = []
    for skipped_file in skipped[:MAX_SKIPPED_FILES]:
        path = redact_credentials(skipped_file.path)
        skipped_files.append({"path": path, "reason": skipped_file.reason})
    return {
        "config": redacted(dataclasses.asdict(config)),
        "versions": versions,
        "git_commit": _git_commit(),
        "input": listing,
        "skipped": {"count": len(skipped), "files": skipped_files},
        "shards": shards,
    }


def describe(plan: Plan) -> Mapping[str, str]:
    """Returns the lines of the terminal about a run, by label."""
    source = redacted(plan.config.input)
    return {
        "model": plan.config.model,
        "task": plan.config.task,
        "input": f"{source}: {plan.own_row_count:,} rows in {len(plan.own_shards):,} shards",
        "output": str(redacted(plan.config.output)),
    }


def redacted(value: Any) -> Any:
    """Returns a value of JSON without credentials in its strings."""
    if isinstance(value, dict):
        return {name: redacted(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    if isinstance(value, str):
        return redact_credentials(value)
    return value


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Returns the commit of this code.

    A copy without .git takes it from GROK_BATCH_COMMIT; None where that is not set.
    """
    from_environment = os.environ.get("GROK_BATCH_COMMIT") or None
    if not (ROOT / ".git").exists():
        # An installed package may lie within the repository of another project.
        return from_environment
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return from_environment
    if process.returncode != 0:
        return from_environment
    return process.stdout.strip()
