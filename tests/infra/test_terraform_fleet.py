"""node/fleet.py: machines that do not join end, and failed boots in a row open the breaker."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.terraform.node import fleet
from tests.infra.cloud import Commands

BEGIN = datetime(2026, 11, 27, 2, tzinfo=UTC)
AUTOSCALER = {
    "max_workers": 4,
    "available_node_types": {"head": {"max_workers": 0}, "gpu": {"max_workers": 4}},
}
# Objects of S3 are files; EC2 answers what the test wrote.
AWS = """
folder = pathlib.Path({folder!r})
if args[:2] == ["s3", "cp"]:
    (folder / "boots" / args[-1].rpartition("/")[2]).write_text(sys.stdin.read())
elif args[:2] == ["s3api", "list-objects-v2"]:
    names = sorted(path.name for path in (folder / "boots").iterdir())
    if names:
        print(json.dumps({{"Contents": [{{"Key": "cluster/boots/1/" + name}} for name in names]}}))
elif args[:2] == ["ec2", "describe-instances"]:
    print((folder / "machines.json").read_text())
"""


class Cluster:
    """A head whose clock, nodes and machines the test sets."""

    def __init__(self, folder: Path, scaling: str) -> None:
        self.folder = folder
        self.commands = Commands(folder)
        self.commands.fake("aws", AWS.format(folder=str(folder)))
        (folder / "boots").mkdir()
        (folder / "autoscaler.full.yaml").write_text(yaml.safe_dump(AUTOSCALER))
        self.minutes = 0.0
        self.nodes: set[str] | None = {"10.42.0.1"}
        self.machines: list[dict[str, Any]] = []
        environment = {
            "CLUSTER": "test",
            "METRIC_NAMESPACE": "GrokBatch",
            "SCALING": scaling,
            "ASG_NAME": "test-workers",
            "BOOTS_URL": "s3://runs/cluster/boots/1",
            "BREAKER_BOOTS": "3",
            "BOOT_MINUTES": "20",
            "GCS_PORT": "6379",
            "STATE": str(folder),
        }
        self.fleet = fleet.Fleet(fleet.Settings.of(environment), self.addresses, self.now)

    def now(self) -> datetime:
        return BEGIN + timedelta(minutes=self.minutes)

    def addresses(self, gcs: str) -> set[str]:
        assert gcs == "127.0.0.1:6379"
        if self.nodes is None:
            raise ConnectionError("the GCS is gone")
        return self.nodes

    def start(self, number: int, state: str = "running", reason: str | None = None) -> None:
        self.machines.append(
            {
                "id": f"i-{number}",
                "ip": f"10.42.0.{10 + number}",
                "launched": self.now().isoformat(),
                "state": state,
                "reason": reason,
            }
        )

    def step(self, minutes: float) -> None:
        self.minutes = minutes
        (self.folder / "machines.json").write_text(json.dumps(self.machines))
        self.commands.log.unlink(missing_ok=True)
        self.fleet.step()

    def boots(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "boots").iterdir())

    def metrics(self) -> dict[str, str]:
        calls = self.commands.called("aws", "cloudwatch", "put-metric-data")
        return {
            call[call.index("--metric-name") + 1]: call[call.index("--value") + 1] for call in calls
        }

    def ended(self) -> list[list[str]]:
        ray = self.commands.called("aws", "ec2", "terminate-instances")
        return ray + self.commands.called(
            "aws", "autoscaling", "terminate-instance-in-auto-scaling-group"
        )

    def limit(self) -> int:
        config = yaml.safe_load((self.folder / "autoscaler.yaml").read_text())
        assert config["available_node_types"]["head"]["max_workers"] == 0
        assert config["max_workers"] == config["available_node_types"]["gpu"]["max_workers"]
        limit: int = config["max_workers"]
        return limit


Make = Callable[[str], Cluster]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    def cluster(scaling: str) -> Cluster:
        made = Cluster(tmp_path, scaling)
        monkeypatch.setenv("PATH", made.commands.env()["PATH"])
        return made

    return cluster


@pytest.mark.parametrize(
    ("scaling", "words"),
    [
        ("ray", ["aws", "ec2", "terminate-instances", "--instance-ids", "i-1"]),
        (
            "asg",
            [
                "aws",
                "autoscaling",
                "terminate-instance-in-auto-scaling-group",
                "--instance-id",
                "i-1",
                "--no-should-decrement-desired-capacity",
            ],
        ),
    ],
)
def test_machine_that_never_joins_ends_and_is_a_failed_boot(
    make: Make, scaling: str, words: list[str]
) -> None:
    cluster = make(scaling)
    cluster.start(1)
    cluster.step(0)
    cluster.step(19)
    assert (cluster.ended(), cluster.boots()) == ([], [])
    cluster.step(21)
    assert cluster.ended() == [words]
    assert cluster.boots() == ["20261127T022100Z-i-1-failed"]
    assert cluster.metrics() == {"HeadUp": "1", "BootFailed": "1", "BreakerOpen": "0"}


def test_machine_whose_node_is_lost_ends_after_the_same_time(make: Make) -> None:
    cluster = make("ray")
    cluster.start(1)
    cluster.nodes = {"10.42.0.1", "10.42.0.11"}
    cluster.step(0)
    cluster.step(60)
    assert cluster.boots() == ["20261127T020000Z-i-1-joined"]
    cluster.nodes = {"10.42.0.1"}
    cluster.step(79)
    assert cluster.ended() == []
    cluster.step(81)
    assert len(cluster.ended()) == 1
    assert cluster.boots() == ["20261127T020000Z-i-1-joined"], "its boot did not fail"


def test_breaker_opens_after_failed_boots_in_a_row_and_closes_by_reset(make: Make) -> None:
    cluster = make("ray")
    cluster.start(9)
    cluster.nodes = {"10.42.0.1", "10.42.0.19"}
    for number in range(1, 4):
        (cluster.folder / "boots" / f"20261127T03000{number}Z-i-{number}-failed").touch()
        cluster.step(number)
        assert cluster.metrics()["BreakerOpen"] == str(int(number == 3))
    assert cluster.limit() == 1, "the worker that has joined stays"
    mark = cluster.folder / "breaker-open"
    assert len(mark.read_text().splitlines()) == 3

    (cluster.folder / "boots" / "20261127T040000Z-reset").touch()
    cluster.step(5)
    assert cluster.limit() == 4
    assert not mark.exists()
    assert cluster.metrics()["BreakerOpen"] == "0"


def test_breaker_lowers_the_group_to_the_workers_that_have_joined(make: Make) -> None:
    cluster = make("asg")
    for number in range(1, 4):
        (cluster.folder / "boots" / f"20261127T03000{number}Z-i-{number}-failed").touch()
    cluster.start(9)
    cluster.nodes = {"10.42.0.1", "10.42.0.19"}
    cluster.step(1)
    (call,) = cluster.commands.called("aws", "autoscaling", "set-desired-capacity")
    assert call[3:] == ["--auto-scaling-group-name", "test-workers", "--desired-capacity", "1"]


def test_boot_that_succeeds_ends_a_row_of_failures() -> None:
    names = ["1-a-failed", "2-b-failed", "3-c-joined", "4-d-failed"]
    assert fleet.failures_in_a_row(names) == ["4-d-failed"]
    assert fleet.failures_in_a_row([*names, "5-reset"]) == []


def test_machine_that_shuts_down_silently_is_a_failed_boot_once(make: Make) -> None:
    cluster = make("asg")
    cluster.step(0)
    cluster.minutes = 1
    cluster.start(1, "terminated", "Client.InstanceInitiatedShutdown")
    cluster.start(2, "terminated", "Server.SpotInstanceTermination")
    cluster.start(3, "terminated", "Client.UserInitiatedShutdown")
    cluster.step(2)
    cluster.step(3)
    assert [name.partition("-")[2] for name in cluster.boots()] == ["i-1-failed"]


def test_workers_of_an_earlier_head_have_time_to_join(make: Make) -> None:
    cluster = make("ray")
    cluster.minutes = -600
    cluster.start(1)
    cluster.start(2, "terminated", "Client.InstanceInitiatedShutdown")
    cluster.step(0)
    assert (cluster.ended(), cluster.boots()) == ([], [])
    cluster.step(21)
    assert len(cluster.ended()) == 1
    assert cluster.boots() == []


def test_head_whose_ray_does_not_answer_reports_and_ends_nothing(make: Make) -> None:
    cluster = make("ray")
    cluster.start(1)
    cluster.step(0)
    cluster.nodes = None
    cluster.step(60)
    assert cluster.metrics() == {"HeadUp": "0"}
    assert cluster.ended() == []


def test_failed_command_of_aws_is_an_error_with_its_message(make: Make) -> None:
    cluster = make("ray")
    cluster.commands.fake("aws", "sys.exit('AccessDenied: the role may not')")
    with pytest.raises(fleet.AwsError, match="aws cloudwatch put-metric-data: AccessDenied"):
        cluster.step(0)
