"""infra/terraform: terraform tests with a mocked cloud, checkov, IAM linter, shellcheck, systemd.

Nothing here reaches AWS. `terraform test` proves what is asked for, not that EC2 grants it:
docs/clusters/aws.md says what to look at after the first `terraform apply`.
"""

import base64
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.terraform.node import fleet
from tests.infra.cloud import metadata, serve
from tests.infra.iam import Call, allows, calls_of, ray_calls, s3_arn
from tests.infra.machine import Machine
from tests.infra.terraform_tool import SOURCE, Terraform, make, resources
from tests.infra.test_terraform_fleet import Cluster
from tests.infra.tools import ROOT, program, python_with

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NODE = SOURCE / "node"
INSTALL = "make infra-tools"
COMPOSITION = "tests/composition.tftest.hcl"
RUNS = {"composition": 2, "machines": 7, "network": 2, "schedule": 2, "storage": 1, "validation": 8}
ENVIRONMENTS = sorted(path.name for path in (SOURCE / "environments").iterdir())

# What parliament finds and what makes it right. An entry that no longer occurs fails the test too.
KEY_POLICY = (
    "a key's policy says * for the key itself, and lets IAM decide about everything: "
    "AWS's own default"
)
EXPLAINED = {
    ("aws_kms_key.this", "RESOURCE_STAR"): KEY_POLICY,
    ("aws_kms_key.this", "PERMISSIONS_MANAGEMENT_ACTIONS"): KEY_POLICY,
    (
        "aws_kms_key.this",
        "UNKNOWN_CONDITION_FOR_ACTION",
    ): "as CloudWatch Logs documents it: Describe* is never asked with a context",
    (
        "aws_kms_key.this",
        "MISMATCHED_TYPE",
    ): "as CloudWatch Logs documents it: the context's value is an ARN",
    (
        "aws_iam_policy.submit",
        "UNKNOWN_CONDITION_FOR_ACTION",
    ): "as Session Manager documents it: who has no access to the document gets no shell",
    (
        'node["head"]',
        "PERMISSIONS_MANAGEMENT_ACTIONS",
    ): "PassRole, for the one role of workers, to EC2 alone",
    ('node["head"]', "PRIVILEGE_ESCALATION"): "that role may less than the head's own",
    (
        'node["head"]',
        "RESOURCE_MISMATCH",
    ): "RunInstances in three statements, "
    "because type and template are conditions of some resources",
}


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return make(tmp_path_factory.mktemp("terraform"))


@pytest.fixture(scope="module")
def composed(terraform: Terraform) -> list[dict[str, Any]]:
    """What terraform says of the whole, applied to mocks.

    The others print no states: those of the real provider are large.
    """
    return terraform.test("-verbose", f"-filter={COMPOSITION}")


@pytest.fixture(scope="module")
def states(composed: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Resources of the whole, by run."""
    assert failures(composed) == []
    return {
        message["@testrun"]: list(resources(message["test_state"]["root_module"]))
        for message in composed
        if message["type"] == "test_state"
    }


def failures(messages: list[dict[str, Any]]) -> list[str]:
    return [
        f"{message.get('@testrun')}: "
        f"{message['diagnostic']['detail'] or message['diagnostic']['summary']}"
        for message in messages
        if message["type"] == "diagnostic"
    ]


def test_sources_are_formatted(terraform: Terraform) -> None:
    done = terraform.run("fmt", "-check", "-recursive", "-diff", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", [".", *(f"environments/{name}" for name in ENVIRONMENTS)])
def test_configuration_is_valid(terraform: Terraform, folder: str) -> None:
    terraform.init(folder)
    done = terraform.run("validate", "-no-color", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_terraform_tests_pass(terraform: Terraform, composed: list[dict[str, Any]]) -> None:
    files = sorted(
        path.stem.removesuffix(".tftest") for path in (SOURCE / "tests").glob("*.tftest.hcl")
    )
    assert files == sorted(RUNS)
    messages = composed + terraform.test(
        *(f"-filter=tests/{name}.tftest.hcl" for name in RUNS if name not in COMPOSITION)
    )
    assert failures(messages) == []
    complete = (
        m["test_run"]
        for m in messages
        if m["type"] == "test_run" and m["test_run"]["progress"] == "complete"
    )
    passed = Counter(run["path"] for run in complete if run["status"] == "pass")
    assert passed == {f"tests/{name}.tftest.hcl": count for name, count in RUNS.items()}


@pytest.mark.parametrize(
    ("file", "right", "wrong", "tests", "said"),
    [
        (
            "modules/network/main.tf",
            (
                "referenced_security_group_id = local.members[each.value.from]\n"
                '  ip_protocol                  = "tcp"'
            ),
            'cidr_ipv4 = "0.0.0.0/0"\n  ip_protocol = "tcp"',
            "network",
            "names an address range",
        ),
        ("modules/gpu_workers/main.tf", '"required"', '"optional"', "machines", "IMDSv1"),
        (
            "modules/gpu_workers/main.tf",
            'timeadd(var.capacity_block.end, "-45m")\n',
            'timeadd(var.capacity_block.end, "-25m")\n',
            "machines",
            "before AWS ends",
        ),
    ],
    ids=["open to the world", "IMDSv1", "a block drained too late"],
)
def test_planted_fault_is_found(
    terraform: Terraform, tmp_path: Path, file: str, right: str, wrong: str, tests: str, said: str
) -> None:
    copy = tmp_path / "terraform"
    shutil.copytree(terraform.folder, copy, symlinks=True)
    text = (copy / file).read_text()
    assert right in text
    (copy / file).write_text(text.replace(right, wrong, 1))
    assert said in "\n".join(
        failures(Terraform(copy, terraform.env).test(f"-filter=tests/{tests}.tftest.hcl"))
    )


def test_checkov_findings_are_explained() -> None:
    command = [
        program("checkov", INSTALL),
        "-d",
        str(SOURCE),
        "--framework",
        "terraform",
        "--compact",
        "--quiet",
        "--skip-download",
        "-o",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    failed = [
        f"{check['check_id']} {check['resource']}: {check['check_name']}"
        for check in report["results"]["failed_checks"]
    ]
    assert failed == []
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 100
    skipped = re.findall(
        r"checkov:skip=(\w+)(?::(.*))?",
        "\n".join(path.read_text() for path in SOURCE.rglob("*.tf")),
    )
    assert [check for check, reason in skipped if len(reason.split()) < 4] == []


def test_policy_findings_are_explained(states: dict[str, list[dict[str, Any]]]) -> None:
    policies = {
        (resource["address"], resource["values"]["policy"])
        for run in states.values()
        for resource in run
        # mocks fill in some that nobody wrote
        if (resource["values"].get("policy") or "").startswith("{")
    }
    assert len(policies) >= 10
    command = [python_with("parliament"), str(Path(__file__).with_name("lint_policies.py"))]
    done = subprocess.run(
        command, input=json.dumps(sorted(policies)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    unexplained = [finding for finding in found if explanation(finding) is None]
    assert unexplained == []
    assert {explanation(finding) for finding in found} == set(EXPLAINED)


def explanation(finding: dict[str, str]) -> tuple[str, str] | None:
    return next(
        (
            key
            for key in EXPLAINED
            if finding["where"].endswith(key[0]) and finding["issue"] == key[1]
        ),
        None,
    )


def test_policy_wildcards_are_limited(states: dict[str, list[dict[str, Any]]]) -> None:
    """Wildcards are used only where they are needed.

    A star as resource: AWS offers no other. A star as action: the key's own policy, and denials.
    """
    starred, roles = set(), ("aws_iam_role_policy", "aws_iam_policy")
    for resource in (
        resource for run in states.values() for resource in run if resource["type"] in roles
    ):
        for statement in json.loads(resource["values"]["policy"])["Statement"]:
            assert not any("*" in action for action in statement["Action"]), statement
            if statement["Resource"] == "*":
                starred.add(statement["Sid"])
    assert starred == {"SessionManagerAndRunCommand", "Metrics", "SeeInstances"}


def test_workers_cannot_read_prompts_or_results(states: dict[str, list[dict[str, Any]]]) -> None:
    (policy,) = {
        resource["values"]["policy"]
        for resource in states["ray_scales"]
        if resource["address"].endswith('_policy.node["worker"]')
    }
    objects = [
        target
        for statement in json.loads(policy)["Statement"]
        if statement["Action"] in (["s3:GetObject"], ["s3:PutObject"])
        for target in statement["Resource"]
    ]
    assert [target.partition("us-east-1-")[2] for target in objects] == [
        "weights/*",
        "runs/cluster/*",
        "runs/cluster/jax-cache/*",
        "runs/cluster/boots/*",
    ]


def user_data(states: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """What cloud-init runs, by role."""
    values = {resource["type"]: resource["values"] for resource in states["ray_scales"]}
    worker = base64.b64decode(values["aws_launch_template"]["user_data"]).decode()
    return {"head": values["aws_instance"]["user_data"], "worker": worker}


def node_settings(states: dict[str, list[dict[str, Any]]], run: str) -> dict[str, str]:
    """Returns node.env of a run's head, but for folders of the machine, its role and the digest."""
    values = {resource["type"]: resource["values"] for resource in states[run]}
    _, _, text = values["aws_instance"]["user_data"].partition("<<'SETTINGS'\n")
    settings = re.findall(r'^(\w+)="(.*)"$', text.partition("\nSETTINGS\n")[0], re.MULTILINE)
    own = {"ROLE", "RELEASE_SHA256"}
    return {
        name: text for name, text in settings if name not in own and not text.startswith("/")
    } | {name: text for name, text in settings if name.endswith("_PARAMETER")}


def role_policies(states: dict[str, list[dict[str, Any]]], run: str) -> dict[str, str]:
    """Returns the policy of each kind of node."""
    policies: dict[str, str] = {}
    for resource in states[run]:
        match = re.search(r'aws_iam_role_policy\.node\["(\w+)"\]$', resource["address"])
        if match is not None:
            policies[match[1]] = resource["values"]["policy"]
    return policies


# Made by programs that are not ours: the agents of Session Manager and CloudWatch, jobs that read
# prompts and write runs, and replicas that keep compiled programs.
OF_OTHER_PROGRAMS = re.compile(
    r"ssm:(UpdateInstance|List)|ssmmessages:|ec2messages:|logs:|s3:GetBucketLocation"
    r"|s3:AbortMultipartUpload|s3:ListMultipartUploadParts"
)


@pytest.mark.parametrize(
    ("run", "scaling"), [("ray_scales", "ray"), ("a_group_scales_for_a_nightly_job", "asg")]
)
def test_roles_allow_every_call_of_their_machines_and_nothing_beyond(
    states: dict[str, list[dict[str, Any]]],
    run: str,
    scaling: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Recorded from whole boots, failed ones, and the services of head and worker."""
    settings = node_settings(states, run)
    policies = role_policies(states, run)
    commands: dict[str, list[list[str]]] = {"worker": [], "head": []}
    group = "autoscaling/target-lifecycle-state"
    with serve(metadata(**{group: "Terminated"})) as imds:
        for role, fault in (
            ("worker", ""),
            ("worker", "s3 sync"),
            ("worker", "release"),
            ("head", ""),
        ):
            folder = tmp_path / f"{role}-{fault.replace(' ', '-')}"
            folder.mkdir()
            machine = Machine(folder, imds.url, role, scaling, settings)
            machine.fake_aws(fault)
            machine.first_boot()
            commands[role] += machine.commands.called("aws")
    commands["head"] += fleet_commands(tmp_path, scaling, settings, monkeypatch)
    if scaling == "asg":
        nightly = ["--auto-scaling-group-name", settings["ASG_NAME"], "--desired-capacity", "2"]
        commands["head"].append(["aws", "autoscaling", "set-desired-capacity", *nightly])

    for role, recorded in commands.items():
        calls = [call for command in recorded for call in calls_of(command)]
        assert len(calls) > 8
        if role == "head" and scaling == "ray":
            calls += ray_calls()
        if role == "worker":  # replicas keep compiled programs
            calls.append(Call("s3:PutObject", s3_arn(f"{settings['JAX_CACHE_URL']}/program")))
        refused = [call for call in calls if not allows(policies[role], call)]
        assert refused == [], role

        allowed: set[str] = set()
        for statement in json.loads(policies[role])["Statement"]:
            if statement["Effect"] == "Allow":
                allowed |= set(statement["Action"])
            remaining = json.loads(policies[role])["Statement"]
            remaining.remove(statement)
            policy = json.dumps({"Statement": remaining})
            if not all(OF_OTHER_PROGRAMS.match(action) for action in statement["Action"]):
                needed = [call for call in calls if not allows(policy, call)]
                assert needed or statement["Effect"] == "Deny", statement["Sid"]
        made = {call.action for call in calls}
        beyond = {action for action in allowed - made if not OF_OTHER_PROGRAMS.match(action)}
        assert beyond == set(), role


def fleet_commands(
    folder: Path, scaling: str, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> list[list[str]]:
    """Returns the commands of fleet.py: a boot that joins, one that does not, and the breaker."""
    head = folder / "fleet"
    head.mkdir()
    cluster = Cluster(head, scaling)
    environment = settings | {"SCALING": scaling, "STATE": str(head)}
    cluster.fleet.settings = fleet.Settings.of(environment)
    monkeypatch.setenv("PATH", cluster.commands.env()["PATH"])
    cluster.start(1)
    cluster.start(2)
    cluster.nodes = {"10.42.0.1", "10.42.0.11"}
    recorded: list[list[str]] = []
    cluster.step(0)
    recorded += cluster.commands.called("aws")
    for number in range(3):
        (head / "boots" / f"20261127T03000{number}Z-i-{number}7-failed").touch()
    cluster.step(60)
    return recorded + cluster.commands.called("aws")


def test_evaluator_denies_what_a_statement_denies_or_does_not_name() -> None:
    allow = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::b/*"]}
    deny = {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::b/secret/*"}
    tagged = {
        "Effect": "Allow",
        "Action": ["ec2:TerminateInstances"],
        "Resource": "*",
        "Condition": {"StringEquals": {"aws:ResourceTag/role": "worker"}},
    }
    policy = json.dumps({"Statement": [allow, deny, tagged]})
    assert allows(policy, Call("s3:GetObject", "arn:aws:s3:::b/x"))
    assert not allows(policy, Call("s3:GetObject", "arn:aws:s3:::b/secret/x"))
    assert not allows(policy, Call("s3:PutObject", "arn:aws:s3:::b/x"))
    assert not allows(policy, Call("s3:GetObject", "arn:aws:s3:::c/x"))
    assert not allows(policy, Call("ec2:TerminateInstances", "i-1"))
    worker = {"aws:ResourceTag/role": "worker"}
    assert allows(policy, Call("ec2:TerminateInstances", "i-1", worker))


@pytest.mark.parametrize("role", ["head", "worker"])
def test_rendered_user_data_passes_shellcheck(
    states: dict[str, list[dict[str, Any]]], role: str, tmp_path: Path
) -> None:
    script = tmp_path / "user_data.sh"
    script.write_text(user_data(states)[role])
    assert set(re.findall(r"[$%]\{(\w*)", script.read_text())) == {"IMDS", "DNF_PAUSE_S"}
    assert len(script.read_bytes()) < 16_384
    check_script(script)


@pytest.mark.parametrize(
    "script", sorted([*NODE.glob("*.sh"), SOURCE / "release.sh"]), ids=lambda path: path.name
)
def test_scripts_pass_shellcheck(script: Path) -> None:
    assert script.stat().st_mode & 0o111, f"{script} cannot be run: chmod +x"
    check_script(script)


def check_script(script: Path) -> None:
    for command in (["bash", "-n"], [program("shellcheck", INSTALL), "--severity=style"]):
        done = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_services_are_valid_for_systemd(tmp_path: Path) -> None:
    for unit in (NODE / "systemd").iterdir():
        text = unit.read_text().replace("/opt/grok-batch/release/.venv/bin/python", sys.executable)
        text = text.replace("/usr/bin/python3.12", sys.executable)
        (tmp_path / unit.name).write_text(text.replace("/opt/grok-batch/release", str(ROOT)))
    units = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [program("systemd-analyze", "it comes with systemd"), "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "grok-batch" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


def test_outputs_configure_the_autoscaler(
    composed: list[dict[str, Any]],
) -> None:
    (message,) = (
        each
        for each in composed
        if each["type"] == "test_state" and each["@testrun"] == "ray_scales"
    )
    outputs = json.dumps(message["test_state"]["outputs"])
    command = [sys.executable, str(ROOT / "infra" / "ray" / "autoscaler.py")]
    done = subprocess.run(command, input=outputs, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    gpu = yaml.safe_load(done.stdout)["available_node_types"]["gpu"]
    assert (gpu["resources"], gpu["max_workers"]) == ({"CPU": 192, "GPU": 8}, 1)
    assert gpu["node_config"]["LaunchTemplate"] == {
        "LaunchTemplateId": "lt-0123456789abcdef0",
        "Version": "$Default",
    }
    assert set(gpu["node_config"]) == {"LaunchTemplate", "InstanceType", "SubnetIds"}


def test_documented_outputs_exist() -> None:
    """`terraform output` names in the documentation are outputs of both examples."""
    page = (ROOT / "docs" / "clusters" / "aws.md").read_text()
    named = set(re.findall(r"terraform output (?:-raw |-json )?([a-z_]+)", page))
    assert named >= {"connect_command", "token_command", "weights_url"}
    for name in ENVIRONMENTS:
        outputs = set(
            re.findall(
                r'^output "(\w+)"',
                (SOURCE / "environments" / name / "outputs.tf").read_text(),
                re.MULTILINE,
            )
        )
        assert named - outputs == set(), name


def test_lock_files_of_offline_mirrors_are_absent() -> None:
    listed = subprocess.run(
        ["git", "ls-files", str(SOURCE)], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    assert ".terraform.lock.hcl" not in listed


def test_sessions_need_a_right_to_their_document(states: dict[str, list[dict[str, Any]]]) -> None:
    """Without the check, a session that names no document is a shell, whatever the policy lists."""
    documents: set[str] = set()
    for run in states.values():
        for resource in run:
            policy = resource["values"].get("policy") or ""
            if resource["type"] != "aws_iam_policy" or "ssm:StartSession" not in policy:
                continue
            for statement in json.loads(policy)["Statement"]:
                if "ssm:StartSession" in statement["Action"]:
                    check = statement["Condition"]["BoolIfExists"]
                    assert check == {"ssm:SessionDocumentAccessCheck": "true"}
                    documents |= {name.partition("document/")[2] for name in statement["Resource"]}
    assert documents == {"", "AWS-StartPortForwardingSession"}
