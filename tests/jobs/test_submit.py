"""`ray job submit` and jobs/submit.py on a real head, a second node and token authentication."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.test_score_dataset import random_prompts
from tests.jobs.runs import (
    ROOT,
    Running,
    conformance_flags,
    report,
    running,
    same_tables,
    table,
)
from tests.ray_nodes import Cluster, running_cluster

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
ROWS = 200


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as made:
        yield made


SECOND_TIME = """
import os, pathlib, sys, time
names = sorted(path.name for path in pathlib.Path().iterdir())
print("commit", os.environ["GROK_BATCH_COMMIT"], "in", os.getcwd(), names, flush=True)
seen = pathlib.Path(sys.argv[1])
if not seen.exists():
    seen.write_text("once")
    sys.exit(75)
while not seen.with_name("go").exists():
    time.sleep(0.1)
print("now it works", flush=True)
sys.exit(3)
"""


def test_submit_retries_joins_and_returns_the_exit_code(cluster: Cluster, tmp_path: Path) -> None:
    """An interrupted attempt is retried; another submitter joins when the first one is killed."""
    program = [
        sys.executable,
        "jobs/submit.py",
        "--address",
        cluster.url,
        "--name",
        "nightly-{night}",
        "--pause-s",
        "0",
    ]
    program += ["--", "python", "-c", SECOND_TIME, str(tmp_path / "seen")]
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(program, cwd=ROOT, env=cluster.env, stdout=log, stderr=log)
        started = Running(first, tmp_path, tmp_path / "log")
        started.wait_until(lambda: started.log.read_text().count("is submitted") == 2, "second try")
        first.kill()
        first.wait()
    said = (tmp_path / "log").read_text()
    assert "attempt 1 of 5: exit code 75; the same command again in 0 s" in said
    assert "-2 is submitted to http://127.0.0.1" in said
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        other = subprocess.Popen(program, cwd=ROOT, env=cluster.env, stdout=out, stderr=err)
        joined = Running(other, tmp_path, tmp_path / "err")
        joined.wait_for_text("runs already: its output follows")
        (tmp_path / "go").touch()  # not before, or the job might end and a third one be submitted
        joined.end(3)
    stdout = (tmp_path / "out").read_text()
    assert "now it works" in stdout
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    [told] = [line for line in stdout.splitlines() if line.startswith("commit")]
    assert commit in told
    assert "working_dir_files" in told, "the job runs in the folder that travelled with it"
    travelled = set(json.loads(told[told.index("[") :].replace("'", '"')))
    assert {"actors", "jobs", "pipeline", "pyproject.toml"} <= travelled
    assert not {"tests", "docs", "infra", ".git", ".venv", "requirements.lock"} & travelled


SLOW_END = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
(folder / "ready").touch()
while not stopped:
    time.sleep(0.05)
time.sleep(4)
(folder / "ended").touch()
sys.exit(75)
"""


def test_stopped_job_has_time_to_commit_what_is_complete(cluster: Cluster, tmp_path: Path) -> None:
    """By default, Ray kills a job 3 s after it has asked it to stop."""
    program = [sys.executable, "jobs/submit.py", "--address", cluster.url]
    program += ["--", "python", "-c", SLOW_END, str(tmp_path)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(program, cwd=ROOT, env=cluster.env, stdout=log, stderr=log)
        submitter = Running(process, tmp_path, tmp_path / "log")
        submitter.wait_until((tmp_path / "ready").exists, "job")
        process.terminate()
        said = submitter.end(75)
    assert "is asked to stop" in said
    assert (tmp_path / "ended").exists()


def test_submit_with_a_wrong_token_is_refused_at_once(cluster: Cluster) -> None:
    program = [
        sys.executable,
        "jobs/submit.py",
        "--address",
        cluster.url,
        "--",
        "python",
        "-c",
        "print(1)",
    ]
    env = cluster.env | {"RAY_AUTH_TOKEN": "wrong" * 8}
    done = subprocess.run(
        program, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "refuses the token" in done.stderr


def test_submitted_jobs_use_both_nodes_and_survive_a_node_loss(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The code travels with the job.

    Each node has one CPU, so that two replicas need both. Then one raylet gets kill -9.
    """
    prompts = random_prompts(tmp_path / "in.parquet", ROWS)
    flags: list[object] = ["-i", prompts, "-o", tmp_path / "out", *conformance_flags()]
    flags += ["--max-tokens", 16, "--max-len", 64]
    sizes = ["--replicas", 2, "--shard-rows", 10]
    job = ["python", "jobs/score_dataset.py", *flags, *sizes]
    done = cluster.submit(*job)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert "Ray cluster at" in done.stdout
    rows = table(tmp_path / "out").to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * ROWS
    came_up = [replica for replica in report(tmp_path / "out")["replicas"] if replica["info"]]
    assert len(came_up) == 2
    assert json.loads((tmp_path / "out" / "run.json").read_text())["fingerprint"]
    again = cluster.submit(*job)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing to do" in again.stdout
    # The same rows once more, in small batches, and a machine dies while its replica holds some.
    disturbed = tmp_path / "disturbed"
    flags[3] = disturbed / "out"
    disturbed.mkdir()
    reach = {name: value for name, value in cluster.env.items() if name.startswith("RAY_")}
    with running(
        [*flags, *sizes, "--batch-tokens", 64], disturbed, **reach, RAY_ADDRESS=cluster.gcs
    ) as run:
        run.wait_for_parts(1)
        cluster.kill_node(1)
        said = run.end(0)
    lost = [
        replica["lost"]
        for replica in report(run.output)["replicas"]
        if replica["lost"] and replica["info"]
    ]
    assert len(lost) == 1, said
    same_tables(table(tmp_path / "out"), table(run.output))
