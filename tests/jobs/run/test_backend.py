import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.pool.config import PoolConfig
from jobs.run.backend import RayBackend, one_cluster
from jobs.run.plan import ROOT
from pipeline.errors import ConfigError
from pipeline.monitoring.run_log import RunLog
from tests.jobs.run.plans import PROMPT, demo_plan


def test_backend_connects_for_the_maximum_of_replicas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes: list[int] = []

    @contextmanager
    def unreachable_cluster(replicas: int, log: RunLog) -> Iterator[str]:
        sizes.append(replicas)
        raise ConfigError("no Ray cluster answers")
        yield ""

    backend = RayBackend(cluster=unreachable_cluster)
    spec = demo_plan(tmp_path, [PROMPT]).replica_spec()
    context = backend.open_pool(spec, PoolConfig(2, 8, devices=1), RunLog())

    with pytest.raises(ConfigError, match="no Ray cluster answers"), context:
        pass
    assert sizes == [8]
    assert capsys.readouterr().out == ""


def test_runs_over_one_cluster_connect_once_and_leave_it_at_the_end() -> None:
    events: list[str] = []

    @contextmanager
    def cluster(replicas: int, log: RunLog) -> Iterator[str]:
        events.append(f"connected for {replicas}")
        yield "local Ray"
        events.append("left")

    with one_cluster(RayBackend(cluster=cluster)) as backend:
        assert isinstance(backend, RayBackend)
        assert events == []
        for _ in range(2):
            with backend.cluster(3, RunLog()) as description:
                assert description == "local Ray"
        assert events == ["connected for 3"]
    assert events == ["connected for 3", "left"]


def test_job_is_importable_without_libraries_it_may_not_need() -> None:
    libraries = "{'ray', 'jax', 'aiohttp', 'matplotlib', 'pandas', 'actors.pool.replica_pool'}"
    program = f"import sys, jobs.score_dataset; print(sorted({libraries} & set(sys.modules)))"

    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert process.stdout == "[]\n"
