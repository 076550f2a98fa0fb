import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.run.plan import ROOT

# Ray reads its environment when it is imported, and `ray_cluster` sets it before. Each case runs in
# a process of its own, in which this module stands in for Ray and records the calls.
RAY = """
import os

calls = []


def init(**arguments):
    calls.append([arguments["address"], arguments.get("num_cpus")])
    if arguments["address"] == os.environ.get("UNREACHABLE"):
        raise ConnectionError("no   answer")


def shutdown():
    calls.append(["shutdown", None])


class Context:
    gcs_address = "10.0.0.1:6379"


def get_runtime_context():
    return Context
"""
PROBE = """
import json
import os

from jobs.run.cluster import ray_cluster
from pipeline.errors import ConfigError

try:
    with ray_cluster(999) as description:
        outcome = description
except ConfigError as error:
    outcome = str(error)
import ray

variables = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")}
print(json.dumps({"outcome": outcome, "calls": ray.calls, "authentication": variables}))
"""
LOCAL = [["local", 999], ["shutdown", None]]


def connect(folder: Path, *, announced: str | None = None, **variables: str) -> dict[str, Any]:
    """Returns what `ray_cluster(999)` yields or raises, its calls of Ray and its variables."""
    (folder / "ray.py").write_text(RAY)
    if announced is not None:
        (folder / "ray").mkdir()
        (folder / "ray" / "ray_current_cluster").write_text(announced + "\n")

    environment = {name: value for name, value in os.environ.items() if "RAY" not in name}
    environment |= {"PYTHONPATH": f"{folder}:{ROOT}", "HOME": str(folder)}
    environment |= {"RAY_TMPDIR": str(folder), **variables}
    process = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def test_cluster_is_local_and_requires_a_random_token(tmp_path: Path) -> None:
    results = [connect(tmp_path), connect(tmp_path)]

    tokens = set()
    for result in results:
        assert (result["outcome"], result["calls"]) == ("local Ray", LOCAL)
        assert result["authentication"]["RAY_AUTH_MODE"] == "token"
        tokens.add(result["authentication"]["RAY_AUTH_TOKEN"])
    assert len(tokens) == 2
    assert min(map(len, tokens)) == 64


def test_cluster_is_the_announced_one_with_its_token(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of ray start")

    result = connect(tmp_path, announced="10.0.0.1:6379")

    assert result["outcome"] == "Ray cluster at 10.0.0.1:6379"
    assert result["calls"] == [["10.0.0.1:6379", None], ["shutdown", None]]
    assert result["authentication"] == {"RAY_AUTH_MODE": "token"}


def test_cluster_that_was_announced_and_ended_is_replaced(tmp_path: Path) -> None:
    result = connect(tmp_path, announced="10.0.0.1:6379", UNREACHABLE="10.0.0.1:6379")

    assert result["outcome"] == "local Ray"
    assert result["calls"] == [["10.0.0.1:6379", None], *LOCAL]


def test_cluster_of_the_user_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    result = connect(tmp_path, RAY_ADDRESS="head:6379", UNREACHABLE="head:6379")

    assert result["outcome"] == (
        "no Ray cluster answers at RAY_ADDRESS=head:6379 (no answer); start it or unset it"
    )
    assert result["calls"] == [["head:6379", None]]


@pytest.mark.parametrize("address", ["head:6379", "local"])
def test_cluster_of_the_user_takes_precedence(address: str, tmp_path: Path) -> None:
    result = connect(tmp_path, announced="10.0.0.1:6379", RAY_ADDRESS=address)

    assert result["calls"][0][0] == address


def test_cluster_keeps_authentication_of_the_user(tmp_path: Path) -> None:
    result = connect(tmp_path, RAY_AUTH_MODE="disabled")

    assert result["authentication"] == {"RAY_AUTH_MODE": "disabled"}
