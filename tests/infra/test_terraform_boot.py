"""User data and units of infra/terraform as a whole: the order of a boot, and its failures."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.cloud import metadata, serve
from tests.infra.machine import Machine
from tests.infra.nvidia import Gpus

GROUP_STATE = "autoscaling/target-lifecycle-state"


@pytest.fixture
def imds() -> Iterator[str]:
    with serve(metadata(**{GROUP_STATE: "Terminated"})) as pages:
        yield pages.url


def test_worker_boots_in_order_and_joins(tmp_path: Path, imds: str) -> None:
    worker = Machine(tmp_path, imds)
    assert worker.first_boot() == 0, worker.output
    assert worker.log("boot").splitlines()[-1] == "grok-batch boot: done"
    positions = worker.order(
        "shutdown -h +22",
        "dnf --quiet --assumeyes --disablerepo=* --enablerepo=amazonlinux install amazon-cloud",
        "amazon-cloudwatch-agent-ctl",  # before anything else can fail
        "install make",
        "aws s3 cp --only-show-errors s3://runs/cluster/releases",
        "enable --now --no-block grok-batch-boot.service",
        "enable --now --no-block grok-batch-kernel.service",
        "enable --now --no-block grok-batch-watch.service",
        "mdadm --create",
        "make --silent",
        "aws ssm get-parameter --name /test/ray-auth-token",
        "gpu_health.py --gpus 8",
        "smoke.py --gpus 8",
        "aws s3 sync",
        "verify_checkpoint.py",
        "shutdown -c",
        "enable --now --no-block grok-batch-ray.service",
        "start-ray start",
    )
    assert positions == sorted(positions)
    assert len(worker.commands.called("amazon-cloudwatch-agent-ctl")) == 2, "the whole list follows"
    dnf = worker.commands.called("dnf")
    assert all("--disablerepo=*" in call for call in dnf), "others wait for the internet"
    assert worker.reasons() == []
    (start,) = worker.commands.called("start-ray")
    assert "10.42.0.10:6379" in start


def test_rebooted_worker_keeps_its_disks_and_joins(tmp_path: Path, imds: str) -> None:
    worker = Machine(tmp_path, imds)
    worker.first_boot()
    worker.commands.fake("mdadm")  # assembles
    (worker.root / "var/lib/grok-batch/ray-address").write_text("10.42.0.10:6379")
    worker.reboot()
    assert worker.commands.called("mkfs.xfs") == []
    assert worker.commands.called("dnf") == []
    positions = worker.order("mdadm --assemble", "gpu_health.py", "aws s3 sync", "start-ray start")
    assert positions == sorted(positions)


STEPS = {
    "instance store": "mount",
    "packages": "make",
    "token": "get-parameter --name /test/ray-auth-token",
    "weights": "s3 sync",
    "log agent": "amazon-cloudwatch-agent-ctl",
    "GPUs": "nvidia-smi",
    "smoke": "runuser",
}
USER_DATA_STEPS = {"system packages": "dnf", "release": "s3 cp --only-show-errors s3://runs"}


def break_step(machine: Machine, command: str) -> None:
    if " " in command:
        machine.fake_aws(fail=command)
    elif command == "nvidia-smi":
        machine.commands.fake(command, Gpus(number=7).body())
    else:
        machine.fail(command)


@pytest.mark.parametrize("step", [step for step in STEPS if step != "log agent"])
def test_boot_that_fails_ends_the_worker_and_says_why(tmp_path: Path, imds: str, step: str) -> None:
    worker = Machine(tmp_path, imds, scaling="asg" if step == "token" else "ray")
    break_step(worker, STEPS[step])
    worker.first_boot()
    [reason] = worker.reasons()
    assert reason.startswith("the worker could not be set up")
    assert "grok-batch boot: instance store" in reason, "the end of boot.log"
    assert worker.commands.called("start-ray") == []
    assert "grok-batch-ray.service" not in worker.enabled
    metrics = worker.commands.called("aws", "cloudwatch", "put-metric-data")
    assert ["BootFailed" in call for call in metrics] == [True]
    if step == "token":
        end, hook = worker.commands.called("aws", "autoscaling")
        assert "--no-should-decrement-desired-capacity" in end
        assert "complete-lifecycle-action" in hook
    else:
        assert worker.commands.called("systemctl", "poweroff")


@pytest.mark.parametrize("step", [*USER_DATA_STEPS, "log agent"])
def test_user_data_that_fails_ends_the_worker_and_says_why(
    tmp_path: Path, imds: str, step: str
) -> None:
    worker = Machine(tmp_path, imds)
    break_step(worker, (USER_DATA_STEPS | STEPS)[step])
    assert worker.first_boot() == 1
    [reason] = worker.reasons()
    assert reason.startswith("user data failed at line ")
    assert worker.enabled == []
    assert ["shutdown", "-h", "+2"] in worker.commands.called("shutdown")
    assert "BootFailed" in worker.commands.called("aws", "cloudwatch", "put-metric-data")[0]


def test_head_boots_in_order_and_starts_the_fleet(tmp_path: Path, imds: str) -> None:
    head = Machine(tmp_path, imds, role="head")
    assert head.first_boot() == 0, head.output
    positions = head.order(
        "amazon-cloudwatch-agent-ctl",
        "make --silent",
        "aws ssm put-parameter",
        "enable --now --no-block grok-batch-ray.service grok-batch-fleet.service",
        "start-ray start",
    )
    assert positions == sorted(positions)
    for name in ("mdadm", "nvidia-smi", "shutdown"):
        assert head.commands.called(name) == []
    assert "grok-batch-watch.service" not in head.enabled


@pytest.mark.parametrize("step", ["packages", "release"])
def test_head_that_cannot_boot_stays(tmp_path: Path, imds: str, step: str) -> None:
    head = Machine(tmp_path, imds, role="head")
    break_step(head, (USER_DATA_STEPS | STEPS)[step])
    head.first_boot()
    assert head.commands.called("shutdown") == []
    assert head.commands.called("systemctl", "poweroff") == []
    assert head.reasons() == [], "the head's alarm is head-broken"
    assert "grok-batch-fleet.service" not in head.enabled
