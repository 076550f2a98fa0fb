"""infra/ray/autoscaler.py against Ray's own schema, EC2's API (moto) and a real autoscaler."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.iam import ray_calls
from tests.ray_nodes import running_cluster

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "infra" / "ray" / "autoscaler.py"


def module() -> Any:
    spec = importlib.util.spec_from_file_location("autoscaler_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def outputs(**changed: Any) -> dict[str, Any]:
    """Returns what Terraform's outputs look like; other outputs stand beside `cluster`."""
    cluster = {
        "name": "grok-batch",
        "region": "us-east-1",
        "head_node_config": {
            "InstanceType": "m7i.2xlarge",
            "ImageId": "ami-1",
            "SubnetIds": ["subnet-1"],
        },
        "worker_node_config": {
            "LaunchTemplate": {"LaunchTemplateId": "lt-1", "Version": "$Default"},
            "InstanceType": "p5.48xlarge",
            "SubnetIds": ["subnet-1", "subnet-2"],
        },
        "head_resources": {"CPU": 8, "GPU": 0},
        "worker_resources": {"CPU": 192, "GPU": 8},
        "max_workers": 2,
        "idle_timeout_minutes": 10,
        "runs_url": "s3://runs",
    }
    return {"head_instance_id": {"value": "i-1"}, "cluster": {"value": cluster | changed}}


def config(**changed: Any) -> dict[str, Any]:
    script = module()
    made: dict[str, Any] = script.autoscaler_config(script.cluster_of(outputs(**changed)))
    return made


def run(*arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=60, check=False
    )


def test_configuration_is_valid_for_ray() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    made = yaml.safe_load(run(text=json.dumps(outputs())).stdout)
    assert made == config()
    validate_config(made)
    assert prepare_config(yaml.safe_load(yaml.safe_dump(made))) == made, (
        "a head that is started by hand fills in no defaults"
    )
    assert made["available_node_types"]["gpu"]["resources"] == {"CPU": 192, "GPU": 8}
    assert made["provider"]["cache_stopped_nodes"] is False


def test_autoscaler_converts_a_file(tmp_path: Path) -> None:
    (tmp_path / "outputs.json").write_text(json.dumps(outputs(max_workers=7)))
    done = run(str(tmp_path / "outputs.json"), "-o", str(tmp_path / "autoscaler.yaml"))
    assert (done.returncode, done.stdout) == (0, "")
    assert yaml.safe_load((tmp_path / "autoscaler.yaml").read_text())["max_workers"] == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "standard input: Expecting value"),
        ("{}", "expected the output `cluster`"),
        ('{"cluster": {"value": {"name": "x"}}}', "lacks region, head_node_config"),
        ("[]", "expected the output `cluster`"),
    ],
)
def test_invalid_outputs_are_a_one_line_error(text: str, message: str) -> None:
    done = run(text=text)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An EC2 API in this process, with an image, a network and a launch template."""
    import boto3
    from moto import mock_aws

    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield boto3.client("ec2", region_name="us-east-1")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of boto3 and moto, not of ours
def test_configuration_launches_and_ends_machines(
    ec2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.client import BaseClient
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="workers", Description="workers", VpcId=vpc)[
        "GroupId"
    ]
    template = ec2.create_launch_template(
        LaunchTemplateName="gpu",
        LaunchTemplateData={
            "ImageId": "ami-12345678",
            "InstanceType": "p5.48xlarge",
            "SecurityGroupIds": [group],
            "UserData": "IyEvYmluL3NoCg==",
        },
    )["LaunchTemplate"]["LaunchTemplateId"]
    worker = outputs()["cluster"]["value"]["worker_node_config"]
    worker |= {
        "LaunchTemplate": {"LaunchTemplateId": template, "Version": "$Default"},
        "SubnetIds": [subnet],
    }
    made = config(worker_node_config=worker)
    recorded: set[str] = set()
    make_api_call = BaseClient._make_api_call

    def record(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        recorded.add(operation)
        return make_api_call(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", record)
    provider = AWSNodeProvider(made["provider"], made["cluster_name"])
    tags = {
        "ray-node-type": "worker",
        "ray-user-node-type": "gpu",
        "ray-node-status": "uninitialized",
    }
    provider.create_node(made["available_node_types"]["gpu"]["node_config"], tags, 1)
    nodes = provider.non_terminated_nodes({"ray-node-type": "worker"})
    assert len(nodes) == 1
    provider.set_node_tags(nodes[0], {"ray-node-status": "up-to-date"})
    provider.non_terminated_nodes({})  # writes the tags
    monkeypatch.setattr(BaseClient, "_make_api_call", make_api_call)
    machines = [
        each for group in ec2.describe_instances()["Reservations"] for each in group["Instances"]
    ]
    assert {machine["InstanceType"] for machine in machines} == {"p5.48xlarge"}
    assert all(
        {"Key": "ray-cluster-name", "Value": "grok-batch"} in machine["Tags"]
        for machine in machines
    )
    provider.terminate_nodes(nodes)
    assert provider.non_terminated_nodes({}) == []
    allowed = {call.action for call in ray_calls()}  # with the role of the head: test_terraform
    assert {f"ec2:{operation}" for operation in recorded | {"TerminateInstances"}} == allowed - {
        "iam:PassRole"
    }


JOB = """
import sys, time
import ray
ray.init(
    address=sys.argv[1],
    _node_ip_address="127.0.0.1",
    logging_level="ERROR",
    log_to_driver=False,
)
def gpus():
    return sorted(int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"])
print("before", gpus(), flush=True)
@ray.remote(num_gpus=8, num_cpus=1)
class Replica:
    def place(self):
        return ray.util.get_node_ip_address()
replicas = [Replica.remote() for _ in range(2)]
places = ray.get([each.place.remote() for each in replicas], timeout=170)
print("places", sorted(places), gpus(), flush=True)
for each in replicas:
    ray.kill(each)
ends = time.monotonic() + 90
while sum(gpus()) and time.monotonic() < ends:
    time.sleep(0.5)
print("after", gpus(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_autoscaler_starts_machines_and_ends_idle_ones(
    tmp_path: Path,
) -> None:
    """The generated file with another provider: machines are local processes that join alone."""
    # A machine counts as idle until its replica has started: seconds, on a machine with other work.
    made = config(worker_resources={"CPU": 2, "GPU": 8}, idle_timeout_minutes=0.5)
    path, log = tmp_path / "autoscaler.yaml", tmp_path / "machines"
    log.touch()
    more = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "PYTHONPATH": str(ROOT),
        "LOCAL_MACHINES_LOG": str(log),
    }
    with running_cluster(
        nodes=1,
        head_flags=["--autoscaling-config", str(path)],
        prepare=lambda gcs: write(path, made, gcs),
        **more,
    ) as cluster:
        command = [sys.executable, "-c", JOB, cluster.gcs]
        done = subprocess.run(
            command, env=cluster.env, capture_output=True, text=True, timeout=270, check=False
        )
        monitor = "\n".join(each.read_text()[-2000:] for each in cluster.folder.rglob("monitor.*"))
        asked = [json.loads(line) for line in log.read_text().splitlines()]
        for each in asked:
            if each["what"] == "create":
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(each["pid"], signal.SIGKILL)
    # Ray tells of nodes that went, too
    told = re.findall(r"^(?:before|places|after) .*", done.stdout, re.MULTILINE)
    assert told == ["before [0]", "places ['127.0.0.2', '127.0.0.3'] [0, 8, 8]", "after [0]"], (
        done.stderr + monitor
    )
    assert [each["what"] for each in asked] == ["create"] * 2 + ["terminate"] * 2
    assert asked[0]["config"] == outputs()["cluster"]["value"]["worker_node_config"]


def write(path: Path, made: dict[str, Any], gcs: str) -> None:
    """Writes the configuration with a provider of this machine."""
    provider = {
        "type": "external",
        "module": "tests.infra.local_machines.LocalMachines",
        "gcs": gcs,
        "disable_node_updaters": True,
    }
    path.write_text(yaml.safe_dump(made | {"provider": provider}))
