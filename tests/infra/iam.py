"""A small evaluator of IAM policies, and what commands of AWS need of them.

Rules: "Policy evaluation logic" and "IAM JSON policy elements: Condition operators" of the IAM
User Guide, as far as the policies of infra/terraform use them. Actions and resources: the "Service
Authorization Reference".
"""

import fnmatch
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ACCOUNT = "us-east-1:123456789012"
INSTANCE = f"arn:aws:ec2:{ACCOUNT}:instance/i-0123456789abcdef0"
KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"


WORKER_TAGS = {
    "aws:ResourceTag/ray-cluster-name": "grok-batch",
    "aws:ResourceTag/ray-node-type": "worker",
}


@dataclass(frozen=True)
class Call:
    """An action on a resource, with keys of its context."""

    action: str
    resource: str = "*"
    context: Mapping[str, str] = field(default_factory=dict)


def allows(policy: str, call: Call) -> bool:
    """Whether a policy allows a call: one statement allows it, and none denies it."""
    effects = {
        statement["Effect"]
        for statement in json.loads(policy)["Statement"]
        if matches(statement, call)
    }
    return effects == {"Allow"}


def matches(statement: Mapping[str, Any], call: Call) -> bool:
    """Whether a statement is about a call."""
    actions = as_list(statement["Action"])
    resources = as_list(statement["Resource"])
    if not any(fnmatch.fnmatchcase(call.action.lower(), name.lower()) for name in actions):
        return False
    if not any(fnmatch.fnmatchcase(call.resource, pattern) for pattern in resources):
        return False
    for operator, conditions in statement.get("Condition", {}).items():
        for key, expected in conditions.items():
            if not condition_holds(operator, call.context.get(key), as_list(expected)):
                return False
    return True


def condition_holds(operator: str, value: str | None, expected: list[str]) -> bool:
    """Whether a condition holds; a key that is absent fails it, but for the IfExists forms."""
    if value is None:
        return operator.endswith("IfExists")
    comparison = operator.removesuffix("IfExists")
    assert comparison in {"StringEquals", "ArnEquals", "ArnLike", "Bool"}, operator
    if comparison in {"ArnEquals", "ArnLike"}:
        return any(fnmatch.fnmatchcase(value, pattern) for pattern in expected)
    return value in expected


def as_list(value: str | list[str]) -> list[str]:
    """Returns a value of a policy as a list."""
    return [value] if isinstance(value, str) else value


def s3_arn(url: str) -> str:
    """Returns the ARN of an object or a prefix."""
    return f"arn:aws:s3:::{url.removeprefix('s3://')}"


def bucket_arn(url: str) -> str:
    """Returns the ARN of the bucket of a URL."""
    return f"arn:aws:s3:::{url.removeprefix('s3://').partition('/')[0]}"


def copy_calls(places: list[str], _: Mapping[str, str]) -> list[Call]:
    """Returns what `aws s3 cp` needs."""
    source, target = places
    if source.startswith("s3://"):
        return [Call("s3:GetObject", s3_arn(source)), Call("kms:Decrypt", KEY)]
    return [Call("s3:PutObject", s3_arn(target)), Call("kms:GenerateDataKey", KEY)]


def sync_calls(places: list[str], _: Mapping[str, str]) -> list[Call]:
    """Returns what `aws s3 sync` from a bucket needs."""
    first = Call("s3:GetObject", f"{s3_arn(places[0])}tensor00000_000")
    return [Call("s3:ListBucket", bucket_arn(places[0])), first, Call("kms:Decrypt", KEY)]


def list_calls(_: list[str], options: Mapping[str, str]) -> list[Call]:
    """Returns what `aws s3api list-objects-v2` needs."""
    return [Call("s3:ListBucket", bucket_arn(options["--bucket"]))]


def get_parameter_calls(_: list[str], options: Mapping[str, str]) -> list[Call]:
    """Returns what `aws ssm get-parameter` needs."""
    calls = [Call("ssm:GetParameter", f"arn:aws:ssm:{ACCOUNT}:parameter{options['--name']}")]
    if "--with-decryption" in options:
        calls.append(Call("kms:Decrypt", KEY))
    return calls


def put_parameter_calls(_: list[str], __: Mapping[str, str]) -> list[Call]:
    """Returns what `aws ssm put-parameter` needs; the request is a file, of token.sh alone."""
    token = Call("ssm:PutParameter", f"arn:aws:ssm:{ACCOUNT}:parameter/grok-batch/ray-auth-token")
    return [token, Call("kms:Encrypt", KEY)]


def metric_calls(_: list[str], options: Mapping[str, str]) -> list[Call]:
    """Returns what `aws cloudwatch put-metric-data` needs."""
    context = {"cloudwatch:namespace": options["--namespace"]}
    return [Call("cloudwatch:PutMetricData", "*", context)]


def terminate_calls(_: list[str], __: Mapping[str, str]) -> list[Call]:
    """Returns what `aws ec2 terminate-instances` of a worker needs."""
    return [Call("ec2:TerminateInstances", INSTANCE, WORKER_TAGS)]


COMMANDS = {
    ("s3", "cp"): copy_calls,
    ("s3", "sync"): sync_calls,
    ("s3api", "list-objects-v2"): list_calls,
    ("ssm", "get-parameter"): get_parameter_calls,
    ("ssm", "put-parameter"): put_parameter_calls,
    ("cloudwatch", "put-metric-data"): metric_calls,
    ("ec2", "describe-instances"): lambda _, __: [Call("ec2:DescribeInstances")],
    ("ec2", "terminate-instances"): terminate_calls,
    ("configure", "set"): lambda _, __: [],
}


def calls_of(command: list[str]) -> list[Call]:
    """Returns what a recorded command of AWS needs.

    Raises:
        KeyError: the command is not known.
    """
    _, service, name, *words = command
    options = dict(itertools.pairwise(words))
    places = [word for word in words if not word.startswith("--")]
    if service == "autoscaling":
        group = f"arn:aws:autoscaling:{ACCOUNT}:autoScalingGroup:uuid:autoScalingGroupName"
        return [Call(f"autoscaling:{camel(name)}", f"{group}/grok-batch-workers")]
    return COMMANDS[service, name](places, options)


def camel(name: str) -> str:
    """Returns the API's name of a command: set-desired-capacity is SetDesiredCapacity."""
    return re.sub(r"(?:^|-)(\w)", lambda match: match[1].upper(), name)


TEMPLATE = {
    "ec2:LaunchTemplate": f"arn:aws:ec2:{ACCOUNT}:launch-template/lt-0123456789abcdef0",
    "ec2:InstanceType": "p5.48xlarge",
}


def ray_calls() -> Iterator[Call]:
    """Yields the calls of Ray's autoscaler: tests/infra/test_autoscaler.py records them.

    RunInstances is checked against each resource that the instance takes.
    """
    ec2 = f"arn:aws:ec2:{ACCOUNT}"
    for resource in ("instance/*", "volume/*", "network-interface/*"):
        yield Call("ec2:RunInstances", f"{ec2}:{resource}", TEMPLATE)
    for resource in ("subnet/subnet-0123456789abcdef0", "security-group/sg-0123456789abcdef0"):
        yield Call("ec2:RunInstances", f"{ec2}:{resource}", TEMPLATE)
    yield Call("ec2:RunInstances", "arn:aws:ec2:us-east-1::image/ami-0123456789abcdef0", TEMPLATE)
    yield Call("ec2:RunInstances", TEMPLATE["ec2:LaunchTemplate"])
    yield Call("ec2:CreateTags", INSTANCE, {"ec2:CreateAction": "RunInstances"})
    yield Call("ec2:CreateTags", INSTANCE, WORKER_TAGS)
    role = "arn:aws:iam::123456789012:role/grok-batch-worker"
    yield Call("iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"})
    yield Call("ec2:DescribeInstances")
    yield Call("ec2:TerminateInstances", INSTANCE, WORKER_TAGS)
