"""Keeps the workers of a cluster in order. Runs on the head.

    python fleet.py        # settings from the environment: /etc/grok-batch/node.env

Every minute it compares the machines that EC2 runs with the nodes that Ray has. A machine that has
not joined BOOT_MINUTES after its start, or whose node has been lost for as long, is ended: Ray's
autoscaler waits for it without a limit. Each boot leaves an object below BOOTS_URL:
`TIME-INSTANCE-joined`, or `TIME-INSTANCE-failed` with the reason. After BREAKER_BOOTS failures in a
row the breaker opens: no further machine is started, the metric BreakerOpen raises an alarm, and
nightly.py refuses to begin. An object whose name ends in `-reset`, or a new release, closes it.

The metric HeadUp is 1 while Ray answers; an alarm notices when nothing is written.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]

JOINED, FAILED, RESET = "joined", "failed", "reset"
TIME_FORMAT = "%Y%m%dT%H%M%SZ"
RUNNING = {"pending", "running"}
SHUT_DOWN_BY_ITSELF = "Client.InstanceInitiatedShutdown"
INTERVAL_S = 60
MACHINE_FIELDS = (
    "Reservations[].Instances[].{id: InstanceId, ip: PrivateIpAddress, launched: LaunchTime, "
    "state: State.Name, reason: StateReason.Code}"
)


class AwsError(Exception):
    """A command of AWS failed; the message is its own."""


def aws(*arguments: str, text: str | None = None) -> str:
    """Runs a command of AWS and returns what it prints.

    Raises:
        AwsError: it fails, or takes more than a minute.
    """
    command = ["aws", *arguments]
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise AwsError(f"{' '.join(command[:3])}: no answer in 60 s") from error
    if done.returncode != 0:
        message = " ".join(done.stderr.split())[-400:]
        raise AwsError(f"{' '.join(command[:3])}: {message}")
    return done.stdout


def say(text: str) -> None:
    """Writes a line to the service's log."""
    sys.stdout.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} fleet: {text}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Settings:
    """Values of node.env."""

    cluster: str
    namespace: str
    scaling: str
    asg: str
    boots_url: str
    breaker_boots: int
    boot_s: float
    gcs: str
    state: Path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Settings":
        """Reads node.env. Raises KeyError with the name of a missing variable."""
        return cls(
            cluster=environment["CLUSTER"],
            namespace=environment["METRIC_NAMESPACE"],
            scaling=environment["SCALING"],
            asg=environment["ASG_NAME"],
            boots_url=environment["BOOTS_URL"].rstrip("/"),
            breaker_boots=int(environment["BREAKER_BOOTS"]),
            boot_s=60 * float(environment["BOOT_MINUTES"]),
            gcs=f"127.0.0.1:{environment['GCS_PORT']}",
            state=Path(environment["STATE"]),
        )


@dataclass(frozen=True)
class Machine:
    """A worker as EC2 describes it."""

    id: str
    ip: str | None
    launched: datetime
    state: str
    reason: str | None

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> "Machine":
        """Reads an entry of MACHINE_FIELDS."""
        return cls(
            id=description["id"],
            ip=description["ip"],
            launched=datetime.fromisoformat(description["launched"]),
            state=description["state"],
            reason=description["reason"],
        )


def node_addresses(gcs: str) -> set[str]:
    """Returns the addresses of all nodes that Ray has, the head's included.

    Raises:
        Exception: of Ray, if its GCS does not answer.
    """
    nodes = GcsClient(address=gcs).get_all_node_info(timeout=10).values()
    alive = GcsNodeInfo.GcsNodeState.ALIVE
    return {node.node_manager_address for node in nodes if node.state == alive}


def failures_in_a_row(boots: list[str]) -> list[str]:
    """Returns the names of the failed boots after the last that joined, or after a reset."""
    failures: list[str] = []
    for name in sorted(boots):
        if name.endswith(FAILED):
            failures.append(name)
        else:
            failures.clear()
    return failures


@dataclass
class Fleet:
    """The workers of one cluster. `step` is called every minute."""

    settings: Settings
    addresses: Callable[[str], set[str]] = node_addresses
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    last_seen: dict[str, datetime] = field(default_factory=dict)  # by instance
    started: datetime | None = None

    def step(self) -> None:
        """Compares machines with nodes once, and acts.

        Raises:
            AwsError: a command of AWS failed; the next step tries again.
        """
        now = self.clock()
        self.started = self.started or now
        try:
            addresses = self.addresses(self.settings.gcs)
        # Ray raises several of its own; none may end this service, which reports them.
        except Exception as error:  # noqa: BLE001
            say(f"Ray does not answer: {error}")
            self._count("HeadUp", 0)
            return
        self._count("HeadUp", 1)

        boots = self._boots()
        joined = 0
        for machine in self._machines():
            if machine.ip in addresses and machine.state in RUNNING:
                joined += 1
                self.last_seen[machine.id] = now
                self._record(boots, machine, JOINED, "the node has joined")
            else:
                self._judge(machine, boots, now)
        self._operate_breaker(failures_in_a_row(boots), joined)

    def _judge(self, machine: Machine, boots: list[str], now: datetime) -> None:
        """Ends a machine that is overdue, and records a boot that failed without a word."""
        has_result = any(machine.id in name for name in boots)
        assert self.started is not None
        is_ours = machine.launched >= self.started  # others are of an earlier head or release
        if machine.state not in RUNNING:
            if is_ours and not has_result and machine.reason == SHUT_DOWN_BY_ITSELF:
                self._record(boots, machine, FAILED, "it shut down before it joined")
            return
        if not has_result:
            reason = "it has not joined"
            since = max(machine.launched, self.started)
        else:
            reason = "its node is lost"
            since = self.last_seen.get(machine.id, self.started)
        overdue_s = (now - since).total_seconds()
        if overdue_s < self.settings.boot_s:
            return
        say(f"{machine.id} at {machine.ip}: {reason} for {overdue_s / 60:.0f} minutes; ending it")
        if is_ours and not has_result:
            self._record(boots, machine, FAILED, f"{reason} in {overdue_s / 60:.0f} minutes")
        self._end(machine)

    def _end(self, machine: Machine) -> None:
        if self.settings.scaling == "asg":
            group = ("autoscaling", "terminate-instance-in-auto-scaling-group")
            aws(*group, "--instance-id", machine.id, "--no-should-decrement-desired-capacity")
        else:
            aws("ec2", "terminate-instances", "--instance-ids", machine.id)

    def _operate_breaker(self, failures: list[str], joined: int) -> None:
        is_open = len(failures) >= self.settings.breaker_boots
        self._count("BreakerOpen", int(is_open))
        mark = self.settings.state / "breaker-open"
        if is_open and not mark.exists():
            say(f"{len(failures)} boots in a row failed; no further machine is started")
            mark.write_text("".join(f"{self.settings.boots_url}/{name}\n" for name in failures))
        if not is_open and mark.exists():
            say("machines may start again")
            mark.unlink()

        if self.settings.scaling == "ray":
            self._limit_autoscaler(joined if is_open else None)
        elif is_open:
            # NewestInstance is the group's termination policy: workers that have joined stay.
            group = ("--auto-scaling-group-name", self.settings.asg)
            aws("autoscaling", "set-desired-capacity", *group, "--desired-capacity", str(joined))

    def _limit_autoscaler(self, limit: int | None) -> None:
        """Writes the configuration that Ray's autoscaler reads again every few seconds."""
        complete = self.settings.state / "autoscaler.full.yaml"
        if not complete.exists():
            return  # nobody has made it yet
        config = yaml.safe_load(complete.read_text())
        if limit is not None:
            config["max_workers"] = min(limit, config["max_workers"])
            for node_type in config["available_node_types"].values():
                node_type["max_workers"] = min(limit, node_type["max_workers"])
        path = self.settings.state / "autoscaler.yaml"
        if path.exists() and yaml.safe_load(path.read_text()) == config:
            return
        new = path.with_suffix(".new")
        new.write_text(yaml.safe_dump(config, sort_keys=False))
        new.replace(path)

    def _boots(self) -> list[str]:
        """Returns the names of all results of boots of this release."""
        listing = json.loads(
            aws("s3api", "list-objects-v2", *self._bucket_and_prefix(), "--output", "json") or "{}"
        )
        return [entry["Key"].rpartition("/")[2] for entry in listing.get("Contents") or []]

    def _bucket_and_prefix(self) -> tuple[str, ...]:
        bucket, _, prefix = self.settings.boots_url.removeprefix("s3://").partition("/")
        return "--bucket", bucket, "--prefix", f"{prefix}/"

    def _record(self, boots: list[str], machine: Machine, result: str, reason: str) -> None:
        """Writes the result of a boot, once."""
        name_end = f"{machine.id}-{result}"
        if any(name.endswith(name_end) for name in boots):
            return
        name = f"{self.clock():{TIME_FORMAT}}-{name_end}"
        say(f"{machine.id}: {reason}")
        url = f"{self.settings.boots_url}/{name}"
        aws("s3", "cp", "--only-show-errors", "-", url, text=f"{reason}\n")
        boots.append(name)
        if result == FAILED:
            self._count("BootFailed", 1)

    def _machines(self) -> list[Machine]:
        """Returns workers that run, and those that ended within the last hour."""
        if self.settings.scaling == "asg":
            tags = [f"Name=tag:aws:autoscaling:groupName,Values={self.settings.asg}"]
        else:
            tags = [f"Name=tag:ray-cluster-name,Values={self.settings.cluster}"]
            tags.append("Name=tag:ray-node-type,Values=worker")
        command = ("ec2", "describe-instances", "--filters", *tags, "--query", MACHINE_FIELDS)
        descriptions = json.loads(aws(*command, "--output", "json"))
        return [Machine.of(description) for description in descriptions]

    def _count(self, metric: str, value: float) -> None:
        aws(
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


def main(environment: Mapping[str, str]) -> int:
    """Runs until the service is stopped."""
    fleet = Fleet(Settings.of(environment))
    say(f"every {INTERVAL_S} s; boots are recorded at {fleet.settings.boots_url}")
    while True:
        try:
            fleet.step()
        except AwsError as error:
            say(f"{error}; trying again in {INTERVAL_S} s")
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    sys.exit(main(os.environ))
