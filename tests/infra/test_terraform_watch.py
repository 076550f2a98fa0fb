"""node/watch.py as a process, between a metadata service, Ray's metrics and fake commands.

Node/drain.py on a real Ray.
"""

import json
import runpy
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.infra.cloud import Commands, Pages, metadata, serve
from tests.infra.nvidia import Gpus
from tests.ray_nodes import BIN, Cluster, free_ports, running_cluster

ROOT = Path(__file__).parents[2]
NODE = ROOT / "infra" / "terraform" / "node"
SPOT, GROUP = (
    "/latest/meta-data/spot/instance-action",
    "/latest/meta-data/autoscaling/target-lifecycle-state",
)


def used(gpus: float) -> dict[str, str]:
    """Ray's metrics while replicas use `gpus` GPUs, among lines that must not be counted."""
    node = 'NodeAddress="10.42.0.17",SessionName="session_1"'

    def sample(resource: str, state: str, value: float) -> str:
        labels = f'Component="raylet",Name="{resource}",{node},State="{state}",Version="2.60.0"'
        return f"ray_resources{{{labels}}} {value}\n"

    return {
        "/metrics": "# HELP ray_resources Logical Ray resources\n"
        + sample("GPU", "USED", gpus)
        + sample("GPU", "AVAILABLE", 8 - gpus)
        + sample("CPU", "USED", 5.0)
    }


class Watched:
    """The watch under test and what it sees."""

    def __init__(self, folder: Path, imds: Pages, ray: Pages) -> None:
        self.folder, self.imds, self.ray = folder, imds, ray
        self.commands = Commands(folder)
        for name in ("aws", "systemctl"):
            self.commands.fake(name)
        self.commands.fake("nvidia-smi", Gpus().body())
        self.node = folder / "node"  # a copy, with a drain.py that is watched too
        shutil.copytree(NODE, self.node)
        (self.node / "drain.py").write_text(
            "import runpy, sys; sys.argv[0] = 'drain'; "
            f"runpy.run_path({str(self.commands.folder / 'drain')!r})"
        )
        self.commands.fake("drain")
        (folder / "ray-address").write_text("10.42.0.10:6379\n")
        (folder / "counted").touch()
        self.process: subprocess.Popen[str] | None = None

    def start(self, **env: str) -> None:
        settings = {
            "CLUSTER": "test",
            "ROLE": "worker",
            "METRIC_NAMESPACE": "GrokBatch",
            "SCALING": "asg",
            "ASG_NAME": "test-workers",
            "LIFECYCLE_HOOK": "test-drain",
            "LIFECYCLE_HOOK_S": "900",
            "IDLE_MINUTES": "5",
            "IMDS": self.imds.url,
            "METRICS_PORT": self.ray.url.rpartition(":")[2],
            "STATE": str(self.folder),
            "DRAINING_MARK": str(self.folder / "run" / "mark"),
            "COUNTED_MARK": str(self.folder / "counted"),
            "WORKER_GPUS": "8",
            "BOOTS_URL": "s3://runs/cluster/boots/1",
            "WATCH_POLL_S": "0.1",
            "WATCH_COUNT_EVERY_S": "0.3",
            "LEAVE_PAUSE_S": "0",
            "HOOK_PAUSE_S": "0",
            "HOOK_ATTEMPTS": "2",
        }
        command = [sys.executable, str(self.node / "watch.py")]
        everything = self.commands.env(**settings | env)
        self.process = subprocess.Popen(
            command, env=everything, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, f"{self.commands.calls()}\n{self.stop()}"
            time.sleep(0.05)

    def stop(self) -> str:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.communicate(timeout=30)[0]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with serve(metadata()) as imds, serve(used(8), session=False) as ray:
        watch = Watched(tmp_path, imds, ray)
        yield watch
        if watch.process is not None:
            watch.stop()


def test_spot_interruption_drains_the_node_once(
    watched: Watched,
) -> None:
    watched.start()
    watched.until(lambda: watched.commands.called("aws", "cloudwatch"))
    assert watched.commands.called("drain") == []
    at = datetime.now(UTC) + timedelta(seconds=119)
    watched.imds.pages[SPOT] = json.dumps(
        {"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"}
    )
    watched.until(lambda: watched.commands.called("drain"))
    time.sleep(0.5)  # several more looks
    ((_, *drain),) = watched.commands.called("drain")
    options = dict(zip(drain[::2], drain[1::2], strict=True))
    assert (options["--address"], options["--ip"]) == ("10.42.0.10:6379", "127.0.0.2")
    assert "spot interruption: terminate" in options["--reason"]
    assert 60 < int(options["--seconds"]) <= 120
    assert (watched.folder / "run" / "mark").exists()
    assert watched.commands.called("aws", "autoscaling") == [], (
        "EC2 takes a spot instance without asking"
    )


def test_scale_in_waits_for_the_last_replica(watched: Watched) -> None:
    watched.imds.pages[GROUP] = "InService"
    watched.start()
    watched.until(lambda: watched.commands.called("aws", "cloudwatch"))
    watched.imds.pages[GROUP] = "Terminated"
    watched.until(lambda: watched.commands.called("drain"))
    time.sleep(0.5)
    assert watched.commands.called("aws", "autoscaling") == [], "a replica still holds its GPUs"
    watched.ray.pages.update(used(0))
    watched.until(lambda: watched.commands.called("aws", "autoscaling"))
    time.sleep(0.5)
    (call,) = watched.commands.called("aws", "autoscaling", "complete-lifecycle-action")
    assert {"test-workers", "test-drain", "i-0123456789abcdef0", "CONTINUE"} <= set(call)


def test_scale_in_does_not_wait_for_a_dead_ray(watched: Watched) -> None:
    watched.imds.pages[GROUP] = "Terminated"
    watched.ray.pages.clear()
    watched.start()
    watched.until(
        lambda: watched.commands.called("aws", "autoscaling", "complete-lifecycle-action")
    )


def test_idle_worker_leaves_its_group_and_lowers_it(watched: Watched) -> None:
    watched.ray.pages.update(used(0))
    watched.imds.pages[GROUP] = "InService"
    end = f"open({str(watched.folder / 'ended')!r}, 'w') if args[1].startswith('term') else None"
    watched.commands.fake("aws", end)
    watched.start(IDLE_MINUTES="0.01", HOOK_ATTEMPTS="100", HOOK_PAUSE_S="0.1")
    watched.until((watched.folder / "ended").exists)
    watched.imds.pages[GROUP] = "Terminated"
    assert watched.process is not None
    assert watched.process.wait(30) == 0
    # the watch has ended: leave.sh itself answers the hook
    (hook,) = watched.commands.called("aws", "autoscaling", "complete-lifecycle-action")
    assert {"test-workers", "test-drain", "i-0123456789abcdef0", "CONTINUE"} <= set(hook)
    ((*call,),) = watched.commands.called(
        "aws", "autoscaling", "terminate-instance-in-auto-scaling-group"
    )
    assert "--should-decrement-desired-capacity" in call
    assert any(
        "WorkerIdle" in each
        for each in watched.commands.called("aws", "cloudwatch", "put-metric-data")
    )
    assert watched.commands.called("systemctl") == []


def test_idle_worker_without_a_group_shuts_down(watched: Watched) -> None:
    watched.ray.pages.update(used(0))
    watched.start(IDLE_MINUTES="0.01", SCALING="ray")
    watched.until(lambda: watched.commands.called("systemctl", "poweroff"))
    assert watched.commands.called("aws", "autoscaling") == []


def test_worker_in_use_or_starting_stays_and_is_counted(watched: Watched) -> None:
    watched.commands.fake("nvidia-smi", Gpus(processes=8).body())
    watched.start(IDLE_MINUTES="0.002")
    watched.until(lambda: len(watched.commands.called("aws", "cloudwatch")) >= 4)
    watched.ray.pages.clear()  # Ray restarts
    seen = len(watched.commands.called("aws", "cloudwatch"))
    watched.until(lambda: len(watched.commands.called("aws", "cloudwatch")) >= seen + 2)
    assert watched.process is not None
    assert watched.process.poll() is None
    metrics = {
        (call[call.index("--metric-name") + 1], call[call.index("--value") + 1])
        for call in watched.commands.called("aws", "cloudwatch")
    }
    assert metrics == {("WorkerMinutes", "0.005"), ("BusyGpus", "8")}
    assert "metrics do not answer" in watched.stop()


def test_worker_without_ray_and_processes_leaves(watched: Watched) -> None:
    """Metrics that do not answer are no work: the node may be lost for good."""
    watched.ray.pages.clear()
    watched.start(IDLE_MINUTES="0.01", SCALING="ray")
    watched.until(lambda: watched.commands.called("systemctl", "poweroff"))


def test_minutes_of_the_boot_are_counted_and_not_idle(watched: Watched) -> None:
    (watched.folder / "counted").unlink()
    (watched.folder / "ray-address").unlink()
    watched.ray.pages.clear()
    watched.start(IDLE_MINUTES="0.002")
    watched.until(lambda: len(watched.commands.called("aws", "cloudwatch")) >= 3)
    assert watched.process is not None
    assert watched.process.poll() is None
    minutes = [
        float(call[call.index("--value") + 1])
        for call in watched.commands.called("aws", "cloudwatch")
    ]
    uptime = float(Path("/proc/uptime").read_text().split()[0]) / 60
    assert minutes[0] == pytest.approx(uptime, rel=0.05)
    assert set(minutes[1:]) == {0.005}


def test_worker_with_a_faulty_gpu_drains_and_is_replaced(watched: Watched) -> None:
    watched.commands.fake("nvidia-smi", Gpus(ecc="3", processes=8).body())
    watched.imds.pages[GROUP] = "InService"
    watched.start(WATCH_GPU_CHECK_EVERY_S="0.1")
    watched.until(
        lambda: watched.commands.called(
            "aws", "autoscaling", "terminate-instance-in-auto-scaling-group"
        )
    )
    words = [call[:3] for call in watched.commands.calls()]
    drained = next(number for number, call in enumerate(words) if call[0] == "drain")
    assert drained < words.index(["aws", "autoscaling", "terminate-instance-in-auto-scaling-group"])
    (call,) = watched.commands.called(
        "aws", "autoscaling", "terminate-instance-in-auto-scaling-group"
    )
    assert "--no-should-decrement-desired-capacity" in call
    assert any("GpuFailed" in call for call in watched.commands.called("aws", "cloudwatch"))
    assert "GPU 0: 3 uncorrectable memory errors" in watched.stop()


def test_watch_survives_failing_metadata_and_commands(watched: Watched) -> None:
    watched.commands.fake("aws", "sys.exit('AccessDenied: the role may not')")
    pages = dict(watched.imds.pages)
    watched.imds.session = False
    watched.imds.pages[GROUP] = "Terminated"
    watched.ray.pages.update(used(0))
    watched.start()
    watched.until(lambda: len(watched.commands.called("aws", "autoscaling")) >= 2)  # tried again
    watched.imds.pages.clear()
    watched.imds.pages.update(pages)
    assert "AccessDenied: the role may not" in watched.stop()


# -- a real Ray ------------------------------------------------------------------------

HOLD_GPUS = """
import sys, time, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
@ray.remote(num_gpus=8, num_cpus=1)
class Replica:
    def ready(self): return True
replica = Replica.remote()
ray.get(replica.ready.remote())
print("held", flush=True)
time.sleep(120)
"""
NODES = """
import sys
from ray._raylet import GcsClient
nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10).values()
print(sorted(node.node_manager_address for node in nodes if node.state == 0))
"""


@pytest.fixture
def cluster() -> Iterator[tuple[Cluster, str]]:
    """A head, and a worker with fake GPUs at another address; yields the worker's metrics."""
    with running_cluster(nodes=1, RAY_metrics_report_interval_ms="500") as made:
        agent, metrics = free_ports(2)
        command = [
            str(BIN / "ray"),
            "start",
            "--address",
            made.gcs,
            "--node-ip-address=127.0.0.2",
            "--num-cpus=1",
            "--num-gpus=8",
        ]
        ports = ["--dashboard-agent-listen-port", agent, "--metrics-export-port", metrics]
        with (made.folder / "worker.log").open("w") as log:
            worker = subprocess.Popen(
                [*command, *ports, "--block", "--disable-usage-stats"],
                env=made.env,
                cwd="/",
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        made.processes.append(worker)
        yield made, f"http://127.0.0.1:{metrics}/metrics"


def python(cluster: Cluster, *arguments: object, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, env=cluster.env | more, capture_output=True, text=True, timeout=120, check=False
    )


def gpus_in_use(url: str) -> float | None:
    """What watch.py counts on a page of Ray's own."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            page = answer.read().decode()
    except OSError:
        return None
    return (
        float(runpy.run_path(str(NODE / "watch.py"))["gpus_in_use"](page))
        if "ray_resources" in page
        else None
    )


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_watch_counts_gpus_and_drains_its_own_node(
    cluster: tuple[Cluster, str],
) -> None:
    made, metrics = cluster
    driver = subprocess.Popen(
        [sys.executable, "-c", HOLD_GPUS, made.gcs], env=made.env, stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "held\n"
        wait(lambda: gpus_in_use(metrics) == 8)
    finally:
        driver.kill()
        driver.communicate()
    wait(lambda: gpus_in_use(metrics) == 0)

    drain = [
        NODE / "drain.py",
        "--address",
        made.gcs,
        "--reason",
        "spot interruption",
        "--seconds",
        "100",
        "--ip",
    ]
    wrong = python(made, *drain, "127.0.0.2", RAY_AUTH_TOKEN="0" * 64)
    assert wrong.returncode != 0, "a client without the token is turned away"
    done = python(made, *drain, "127.0.0.2")
    assert done.returncode == 0, done.stderr
    assert "takes no more work" in done.stdout
    # idle, it ends at once
    wait(lambda: "127.0.0.2" not in python(made, "-c", NODES, made.gcs).stdout)
    assert len(python(made, "-c", NODES, made.gcs).stdout.split(",")) == 1, "the head stays"
    assert "no living node at 127.0.0.2" in python(made, *drain, "127.0.0.2").stderr
