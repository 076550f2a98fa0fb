"""Drains a node before EC2 takes it back, and ends a worker that is idle.

Reads the instance metadata and Ray's metrics.

    python watch.py        # settings from the environment: /etc/grok-batch/node.env

Every few seconds it asks the instance metadata whether EC2 takes the machine back: a spot
interruption (two minutes before), or an Auto Scaling group that scales in. Then drain.py: the job
gives the node no more work and replicas end what they hold; a mark keeps the service from starting
Ray again on a machine that is about to go. Every minute it counts the GPUs that replicas hold, by
Ray's metrics, or by nvidia-smi while those do not answer. A worker whose GPUs nobody has held for
IDLE_MINUTES leaves by leave.sh, and so does one whose GPUs have faults (gpu_health.py). It runs
from the beginning of a boot, so that all minutes that cost money are counted. Standard library
only. Does not depend on jobs and rows.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPOT_NOTICE_S = 120  # what EC2 promises
LEAVE_TIMEOUT_S = 600  # leave.sh waits for the log agent and for the lifecycle hook
FAULTY_CHECKS = 2  # one may fail because nvidia-smi is slow
GPU_DRAIN_S = 60
GPU_LINE = re.compile(
    r'^ray_resources\{(?=[^}]*Name="GPU")(?=[^}]*State="USED")[^}]*\} (\S+)$', re.MULTILINE
)


def say(text: str) -> None:
    """Writes a line to the service's log."""
    sys.stdout.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} watch: {text}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Notice:
    """Why this machine goes, and in how many seconds at the latest."""

    reason: str
    seconds: int
    hook: bool  # the group waits until it is told to go on


class Metadata:
    """The instance metadata service, version 2."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str) -> str | None:
        """Returns an entry, None where there is none."""
        try:
            return self._ask(
                f"/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": self._session()}
            )
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def _session(self) -> str:
        return self._ask("/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")

    def _ask(self, path: str, headers: Mapping[str, str], method: str = "GET") -> str:
        request = urllib.request.Request(self._url + path, headers=dict(headers), method=method)
        with urllib.request.urlopen(request, timeout=2) as answer:
            return str(answer.read().decode())


def notice(metadata: Metadata, now: datetime, hook_s: int) -> Notice | None:
    """Returns why EC2 takes this machine back soon, if it does."""
    spot = metadata.get("spot/instance-action")
    if spot is not None:
        action = json.loads(spot)
        at = datetime.strptime(action["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        left = min(SPOT_NOTICE_S, max(1, int((at - now).total_seconds())))
        return Notice(
            f"spot interruption: {action['action']} at {action['time']}", left, hook=False
        )
    if metadata.get("autoscaling/target-lifecycle-state") == "Terminated":
        return Notice("the Auto Scaling group ends this instance", hook_s, hook=True)
    return None


def uptime_s() -> float:
    """Returns the seconds since the machine started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def gpu_processes() -> int:
    """Returns the number of processes that compute on GPUs; 0 where nvidia-smi does not answer."""
    command = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        say(f"nvidia-smi: {error}")
        return 0
    return len(done.stdout.split())


def gpus_in_use(metrics: str) -> float:
    """Returns the number of this node's GPUs in use, from Ray's metrics in Prometheus' format."""
    return sum(float(value) for value in GPU_LINE.findall(metrics))


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    cluster: str
    namespace: str
    scaling: str
    asg: str
    hook: str
    hook_s: int
    idle_s: float
    metrics_url: str
    imds: str
    address_file: Path  # where ray_node.sh wrote whom it joined
    mark: Path
    counted_mark: Path  # the minutes before the first count of this boot are counted
    gpus: int
    python: str  # with Ray, for drain.py
    poll_s: float = 5.0
    count_every_s: float = 60.0
    gpu_check_every_s: float = 300.0

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "Settings":
        """Reads node.env. Raises KeyError with the name of what is missing."""
        return cls(
            cluster=env["CLUSTER"],
            namespace=env["METRIC_NAMESPACE"],
            scaling=env["SCALING"],
            asg=env["ASG_NAME"],
            hook=env["LIFECYCLE_HOOK"],
            hook_s=int(env["LIFECYCLE_HOOK_S"]),
            idle_s=60 * float(env["IDLE_MINUTES"]),
            metrics_url=f"http://127.0.0.1:{env['METRICS_PORT']}/metrics",
            imds=env.get("IMDS", "http://169.254.169.254"),
            address_file=Path(env["STATE"]) / "ray-address",
            mark=Path(env["DRAINING_MARK"]),
            counted_mark=Path(env["COUNTED_MARK"]),
            gpus=int(env["WORKER_GPUS"]),
            python=env.get("RELEASE_PYTHON", sys.executable),
            poll_s=float(env.get("WATCH_POLL_S", "5")),
            count_every_s=float(env.get("WATCH_COUNT_EVERY_S", "60")),
            gpu_check_every_s=float(env.get("WATCH_GPU_CHECK_EVERY_S", "300")),
        )


@dataclass
class Watch:
    """One machine under watch.

    `step` is called again and again; True means that there is nothing left to do.
    """

    settings: Settings
    metadata: Metadata
    clock: Callable[[], float] = time.monotonic
    uptime: Callable[[], float] = uptime_s
    draining: Notice | None = None
    released: bool = False
    idle_since: float | None = None
    faulty_checks: int = 0
    due: dict[str, float] = field(default_factory=dict)

    def step(self) -> bool:
        """Looks once at everything that is due."""
        if self.draining is None:
            self.draining = notice(self.metadata, datetime.now(UTC), self.settings.hook_s)
            if self.draining is not None:
                self._drain(self.draining)
        if self._is_due("count", self.settings.count_every_s) or self.draining is not None:
            held = self._held()
            if self.draining is not None:
                self._let_go(held)
            elif held is not None and self._idle_too_long(held):
                minutes = self.settings.idle_s / 60
                self._leave("WorkerIdle", f"nobody has held a GPU for {minutes:.0f} minutes")
                return True
        return self._has_faulty_gpus()

    def _leave(self, metric: str, reason: str) -> None:
        run(str(HERE / "leave.sh"), metric, reason, timeout_s=LEAVE_TIMEOUT_S)

    def _has_faulty_gpus(self) -> bool:
        """Leaves and returns True if the GPUs have faults in two checks in a row."""
        joined = self.settings.address_file.exists()  # before that, boot.sh checks them
        if not joined or self.draining is not None:
            return False
        if not self._is_due("gpus", self.settings.gpu_check_every_s):
            return False
        command = (sys.executable, str(HERE / "gpu_health.py"), "--gpus", str(self.settings.gpus))
        if run(*command):
            self.faulty_checks = 0
            return False
        self.faulty_checks += 1
        if self.faulty_checks < FAULTY_CHECKS:
            return False
        reason = "the GPUs of this machine have faults; see gpu_health in watch.log"
        self._drain(Notice(reason, GPU_DRAIN_S, hook=False))
        self._leave("GpuFailed", reason)
        return True

    def _drain(self, why: Notice) -> None:
        say(f"{why.reason}; draining, {why.seconds} s are left")
        self.settings.mark.parent.mkdir(parents=True, exist_ok=True)
        self.settings.mark.touch()
        if not self.settings.address_file.exists():
            say("Ray has not started here; there is nothing to drain")
            return
        address, ip = (
            self.settings.address_file.read_text().strip(),
            self.metadata.get("local-ipv4") or "",
        )
        where = ("--address", address, "--ip", ip)
        run(
            self.settings.python,
            str(HERE / "drain.py"),
            *where,
            "--reason",
            why.reason,
            "--seconds",
            str(why.seconds),
        )

    def _let_go(self, held: float | None) -> None:
        """Tells the group that it may end the machine as soon as no replica is left.

        After its own time-out it does so anyway.
        """
        if self.draining is None or not self.draining.hook or self.released or held:
            return
        say("no replica is left; the group may end the instance")
        self.released = run(
            "aws",
            "autoscaling",
            "complete-lifecycle-action",
            "--lifecycle-action-result",
            "CONTINUE",
            "--auto-scaling-group-name",
            self.settings.asg,
            "--lifecycle-hook-name",
            self.settings.hook,
            "--instance-id",
            self.metadata.get("instance-id") or "",
        )

    def _held(self) -> float | None:
        """Returns how many GPUs replicas hold, and counts this worker's minute.

        None during the boot. While Ray's metrics do not answer, processes on the GPUs count: a
        worker that has lost Ray and computes nothing must not stay.
        """
        self._count("WorkerMinutes", self._minutes())
        try:
            with urllib.request.urlopen(self.settings.metrics_url, timeout=5) as answer:
                held = gpus_in_use(answer.read().decode())
        except (urllib.error.URLError, OSError) as error:
            if not self.settings.address_file.exists():
                return None
            processes = gpu_processes()
            say(
                f"Ray's metrics do not answer ({error}); {processes} processes use GPUs; "
                "grok-batch-ray.service restarts Ray"
            )
            return float(processes)
        self._count("BusyGpus", held)
        return held

    def _minutes(self) -> float:
        """Returns the minutes since the last count; the first count has those of the boot too."""
        minutes = self.settings.count_every_s / 60
        if not self.settings.counted_mark.exists():
            minutes = max(minutes, self.uptime() / 60)
            self.settings.counted_mark.touch()
        return minutes

    def _count(self, metric: str, value: float) -> None:
        if self.draining is None:
            run(
                "aws",
                "cloudwatch",
                "put-metric-data",
                "--namespace",
                self.settings.namespace,
                "--metric-name",
                metric,
                "--value",
                f"{value:g}",
                "--dimensions",
                f"Cluster={self.settings.cluster}",
            )

    def _idle_too_long(self, held: float) -> bool:
        if held > 0:
            self.idle_since = None
            return False
        if self.idle_since is None:
            self.idle_since = self.clock()
        return self.clock() - self.idle_since >= self.settings.idle_s

    def _is_due(self, what: str, every_s: float) -> bool:
        now = self.clock()
        if now < self.due.get(what, now):
            return False
        self.due[what] = now + every_s
        return True


def run(*command: str, timeout_s: float = 90) -> bool:
    """Runs a command.

    One that fails is logged and does not end the watch. Returns whether it worked.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"{' '.join(command[:3])}: {error}")
        return False
    if done.returncode:
        say(
            f"{' '.join(command[:3])} failed with {done.returncode}: "
            f"{' '.join((done.stderr or done.stdout).split())[-400:]}"
        )
    return done.returncode == 0


def main(env: Mapping[str, str]) -> int:
    """Watches until this worker leaves."""
    settings = Settings.of(env)
    watch = Watch(settings, Metadata(settings.imds))
    say(f"watching; idle after {settings.idle_s / 60:g} minutes")
    while True:
        try:
            if watch.step():
                return 0
        except (urllib.error.URLError, OSError) as error:
            say(f"the instance metadata do not answer ({error}); asking again")
        time.sleep(settings.poll_s)


if __name__ == "__main__":
    sys.exit(main(os.environ))
