"""Names that occur on two sides: Terraform, scripts, units, manifests, alerts and documentation."""

import json
import re
import subprocess
from itertools import chain
from pathlib import Path

import pytest
import yaml

from tests.infra.tools import ROOT, program

TERRAFORM = ROOT / "infra" / "terraform"
NODE = TERRAFORM / "node"
UNITS = NODE / "systemd"
OBSERVABILITY = (TERRAFORM / "modules" / "observability" / "main.tf").read_text()
MAIN = (TERRAFORM / "main.tf").read_text()
USER_DATA = (TERRAFORM / "user_data.sh.tftpl").read_text()
SCRIPTS = {path.name: path.read_text() for path in sorted(NODE.glob("*.sh"))}
PROGRAMS = {path.name: path.read_text() for path in sorted(NODE.glob("*.py"))}
UNIT_TEXTS = {path.name: path.read_text() for path in sorted(UNITS.iterdir())}
DOCS = {path.name: path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))}

# Of the machine, of bash and of the scripts themselves; and those that tests set, with a default.
SHELL_OWN = {"BASH_SOURCE", "IFS", "LINENO", "PATH", "RAY_CLOUD_INSTANCE_ID", "RAY_TMPDIR"}
DEFAULTED = re.compile(r"\$\{(\w+):-")


def node_environment() -> dict[str, str]:
    """Returns node.env as main.tf composes it: expressions by name."""
    _, _, block = MAIN.partition("  environment = {\n")
    lines = block.partition("\n  }\n")[0].splitlines()
    pairs = [line.partition("=")[::2] for line in lines]
    return {name.strip(): value.strip().strip('"') for name, value in pairs} | {"ROLE": "role"}


def test_scripts_use_settings_that_terraform_gives_and_no_others() -> None:
    used: set[str] = set()
    settings = re.compile(r"<<'SETTINGS'.*?^SETTINGS$", re.DOTALL | re.MULTILINE)
    for text in [*SCRIPTS.values(), settings.sub("", USER_DATA)]:
        names = set(re.findall(r"\$\{?([A-Z][A-Z0-9_]+)\b", text))
        used |= names - set(DEFAULTED.findall(text))
        used |= {name for name in DEFAULTED.findall(text) if name in node_environment()}
    for text in PROGRAMS.values():
        used |= set(re.findall(r"\benv(?:ironment)?\[['\"](\w+)['\"]\]", text))
    unknown = used - SHELL_OWN - set(node_environment())
    assert unknown == set()
    # of the AWS command, of Ray's libraries, and of the version that boot.sh logs
    indirect = {"AWS_REGION", "AWS_DEFAULT_REGION", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"}
    assert set(node_environment()) - used - indirect == set()


def test_metrics_that_are_written_have_alarms_and_the_reverse() -> None:
    written: set[str] = set()
    for text in PROGRAMS.values():
        written |= set(re.findall(r"_count\(\"(\w+)\"", text))
        written |= set(re.findall(r"\"--metric-name\",\s+\"(\w+)\"", text))
    calls = [*PROGRAMS.values(), *UNIT_TEXTS.values()]
    for text in calls:
        written |= set(re.findall(r"_leave\(\s*\"(\w+)\"", text))
        written |= set(re.findall(r"OnFailure=grok-batch-leave@(\w+)\.service", text))
    written |= set(re.findall(r"--metric-name (\w+)", USER_DATA))
    watched = set(re.findall(r"metric +=  *\"(\w+)\"", OBSERVABILITY))
    assert written - watched == {"WorkerIdle"}, "leaving when idle is no fault"
    assert watched - written == set()


def test_every_alarm_has_the_topic_as_its_action() -> None:
    blocks = OBSERVABILITY.split('resource "aws_cloudwatch_metric_alarm"')[1:]
    assert len(blocks) == 3
    for block in blocks:
        body = block.partition("\n}\n")[0]
        assert re.search(r"alarm_actions +=.*aws_sns_topic\.alarms\.arn", body)
        assert "actions_enabled" not in body


def alarm_names() -> set[str]:
    names = set(re.findall(r"^ +([a-z-]+) = \{\n +description", OBSERVABILITY, re.MULTILINE))
    return names | {"workers-not-started"}


def test_documented_alarms_exist_and_all_are_documented() -> None:
    page = DOCS["aws.md"] + DOCS["runbook.md"]
    for name in alarm_names():
        assert f"`{name}`" in page, name
    documented = re.findall(r"alarms? ((?:`[a-z-]+`(?:, | and )?)+)", page)
    for name in re.findall(r"`([a-z-]+)`", " ".join(documented)):
        assert name in alarm_names(), name


def test_pages_and_sections_that_alarms_name_exist() -> None:
    named = re.findall(r"See docs/clusters/([a-z]+\.md)(?:, ([A-Z][\w ]+))?\.", OBSERVABILITY)
    assert len(named) >= 6
    for page, section in named:
        text = DOCS[page]
        assert not section or re.search(rf"^#+ {section}$", text, re.MULTILINE), (page, section)


def test_log_groups_and_files_agree_on_all_sides() -> None:
    groups = set(
        re.findall(
            r"\"([a-z-]+)\"", OBSERVABILITY.partition("groups     = toset([")[2].partition("]")[0]
        )
    )
    logs = SCRIPTS["logs.sh"]
    assert groups >= {"head", "worker", "jobs", "vpc-flow"}
    assert set(re.findall(r" (jobs|\"\$ROLE\") ", logs)) == {"jobs", '"$ROLE"'}
    written = set(
        chain.from_iterable(
            re.findall(r"StandardOutput=\w+:/var/log/grok-batch/(\w+)\.log", text)
            for text in UNIT_TEXTS.values()
        )
    )
    shipped = set(re.findall(r"/var/log/grok-batch/(\w+)\.log", logs))
    for names in re.findall(r"for service in ([a-z ]+);", logs):
        shipped |= set(names.split())
    assert written == shipped
    assert 'log_group_name": "/$CLUSTER/$ROLE"' in USER_DATA
    for text in (OBSERVABILITY, DOCS["aws.md"], DOCS["runbook.md"]):
        for name in re.findall(
            r"/(?:\$\{var\.name\}|grok-batch)/(head|worker|jobs|[a-z]+)\b", text
        ):
            if f"/opt/grok-batch/{name}" not in text:
                assert name in groups | {"cluster", "ray", "nightly", "log"}, name


def test_units_exist_and_run_files_that_exist() -> None:
    names = set(UNIT_TEXTS)
    texts = [*SCRIPTS.values(), *UNIT_TEXTS.values(), USER_DATA]
    texts.append((TERRAFORM / "modules" / "schedule" / "main.tf").read_text())
    texts += [DOCS["aws.md"], DOCS["runbook.md"]]
    for text in texts:
        for unit in re.findall(r"\bgrok-batch-[a-z]+(?:@\w+)?\.service\b", text):
            assert re.sub(r"@\w+", "@", unit) in names, unit
    for text in UNIT_TEXTS.values():
        for path in re.findall(r"/opt/grok-batch/release/(infra/\S+)", text):
            assert (ROOT / path).is_file(), path
        for word in re.findall(r"^EnvironmentFile=(.*)$", text, re.MULTILINE):
            assert word == "/etc/grok-batch/node.env"
            assert f">{word}" in USER_DATA


def test_boot_limit_is_the_same_everywhere() -> None:
    [minutes] = re.findall(r"boot_minutes +=  *(\d+)", MAIN)
    boot = UNIT_TEXTS["grok-batch-boot.service"]
    assert f"TimeoutStartSec={minutes}min" in boot
    assert "OnFailure=grok-batch-leave@BootFailed.service" in boot
    for page in ("aws.md", "runbook.md"):
        assert f"{minutes}" in DOCS[page]


def test_transfers_of_weights_use_large_parts() -> None:
    """Parts of 8 MB, the default, are 40,000 requests for 318 GB."""
    manifest = (ROOT / "infra" / "kuberay" / "base" / "raycluster.yaml").read_text()
    for text in (SCRIPTS["weights.sh"], manifest):
        assert "aws configure set default.s3.multipart_chunksize 64MB" in text
        setting = text.index("multipart_chunksize 64MB")
        assert setting < text.index("aws s3 sync")


# -- reachability ----------------------------------------------------------------------

# Names of the AWS command -> endpoints of the VPC.
ENDPOINTS = {"autoscaling": "autoscaling", "cloudwatch": "monitoring", "ec2": "ec2", "ssm": "ssm"}
THROUGH_GATEWAY = {"s3", "s3api"}
# Called by agents: Session Manager, Run Command, CloudWatch.
OF_AGENTS = {"ssmmessages", "ec2messages", "logs"}


def test_services_that_nodes_call_have_an_endpoint() -> None:
    called: set[str] = set()
    for text in [*SCRIPTS.values(), USER_DATA]:
        called |= set(re.findall(r"\baws ([a-z0-9]+) [a-z]", text)) - {"configure"}
    for text in PROGRAMS.values():
        called |= set(re.findall(r"aws\(\s*\*?\(?\"([a-z0-9]+)\"", text))
        called |= set(re.findall(r"\"aws\",\s+\"([a-z0-9]+)\"", text))
        called |= set(re.findall(r"(?:group|command) = \(\"([a-z0-9]+)\"", text))
    assert called - THROUGH_GATEWAY == set(ENDPOINTS)
    variables = (TERRAFORM / "variables.tf").read_text()
    block = variables.partition('variable "interface_endpoints"')[2]
    default = json.loads(re.findall(r"default +=  *(\[.*?\])", block)[0])
    assert set(ENDPOINTS.values()) | OF_AGENTS == set(default)


def test_nodes_reach_endpoints_and_s3_only() -> None:
    network = (TERRAFORM / "modules" / "network" / "main.tf").read_text()
    rules = set(re.findall(r'aws_vpc_security_group_egress_rule" "(\w+)"', network))
    assert rules == {"ray", "endpoints", "s3", "internet"}
    assert "route_table_ids   = [aws_route_table.private.id]" in network
    assert "private_dns_enabled = true" in network
    repository = re.findall(r"al2023-repos-\$\{local\.region\}-de612dc2", network)
    assert repository, "dnf reads Amazon Linux's packages from this bucket"
    assert "--disablerepo='*' --enablerepo=amazonlinux" in USER_DATA


# -- schedules -------------------------------------------------------------------------

CRON_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def check_kubernetes_cron(schedule: str) -> None:
    fields = schedule.split()
    assert len(fields) == len(CRON_RANGES), schedule
    for value, (low, high) in zip(fields, CRON_RANGES, strict=True):
        assert value == "*" or low <= int(value) <= high, schedule


def check_eventbridge_cron(schedule: str) -> None:
    """EventBridge Scheduler: minutes, hours, day of month, month, day of week, year."""
    match = re.fullmatch(r"cron\((.*)\)", schedule)
    assert match is not None, schedule
    fields = match[1].split()
    assert len(fields) == 6, schedule
    assert (fields[2] == "?") != (fields[4] == "?"), schedule
    assert 0 <= int(fields[0]) <= 59
    assert 0 <= int(fields[1]) <= 23


def test_schedules_have_the_fields_of_their_parser() -> None:
    for path in (ROOT / "infra" / "kuberay").rglob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            schedule = (document or {}).get("spec", {})
            if isinstance(schedule, dict) and "schedule" in schedule:
                check_kubernetes_cron(schedule["schedule"])
    example = (TERRAFORM / "environments" / "example-nightly" / "main.tf").read_text()
    for text in (example, DOCS["aws.md"]):
        [schedule] = re.findall(r'schedule = "(.*)"', text)
        check_eventbridge_cron(schedule)


def test_timers_are_times_for_systemd() -> None:
    analyze = program("systemd-analyze", "part of systemd")
    for path in (ROOT / "infra" / "one-machine").glob("*.timer"):
        [times] = re.findall(r"^OnCalendar=(.*)$", path.read_text(), re.MULTILINE)
        command = [analyze, "calendar", times]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


# -- paths -----------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["kuberay", "one-machine"])
def test_paths_of_the_image_and_of_hosts_exist(folder: str) -> None:
    paths: set[str] = set()
    for path in (ROOT / "infra" / folder).rglob("*"):
        if path.is_file():
            text = path.read_text().replace("/opt/grok-batch/", " ")
            paths |= set(re.findall(r"(?<![\w/.])(\w+/[\w/-]+\.(?:py|md))\b", text))
    assert paths
    for name in paths:
        assert (ROOT / name).is_file(), name


def test_runbook_names_reasons_that_scripts_write() -> None:
    sources = "\n".join([*SCRIPTS.values(), *PROGRAMS.values(), USER_DATA])
    table = DOCS["runbook.md"].partition("### Boots that fail")[2].partition("###")[0]
    reasons = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    assert len(reasons) >= 7
    for reason in reasons:
        for part in re.split(r" ?… ?", reason):
            assert part in sources or Path(part).suffix or part == "smoke", reason
