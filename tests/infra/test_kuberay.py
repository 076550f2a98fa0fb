"""infra/kuberay: manifests are valid for Kubernetes and KubeRay, consistent, least-privilege."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.protocol.version import VERSION
from jobs.cli.parser import parse
from jobs.evaluation.config import EvaluateConfig
from jobs.run.config import ScoreConfig
from jobs.submission.config import SubmitConfig, split_command_line
from jobs.submission.retry import FINAL_CODES
from tests.infra.kustomize import Resource, build
from tests.infra.test_observability import RULES
from tests.infra.tools import program, python_with
from tests.jobs.runs import ROOT

FOLDER = ROOT / "infra" / "kuberay"
OVERLAYS = ("cluster", "job", "nightly", "cronjob")
COMPONENTS = ("host-cache", "head-survives", "monitoring", "gke")
CRDS = ROOT.parent / "shared" / "tools" / "kuberay-crds" / "validate.py"
RAY_KINDS = {"RayCluster", "RayJob", "RayCronJob"}


def with_components(folder: Path, *names: str) -> Path:
    """Returns an overlay beside the others that adds components to the cluster, or to the job."""
    rules = yaml.safe_load((FOLDER / "cluster" / "kustomization.yaml").read_text())
    rules |= {
        "resources": [str(FOLDER / "base")],
        "components": [str(FOLDER / "components" / name) for name in names],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(rules))
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Resource]]:
    """All overlays, and the cluster with all components."""
    made = {name: build(FOLDER / name) for name in OVERLAYS}
    made["with components"] = build(
        with_components(tmp_path_factory.mktemp("overlay"), *COMPONENTS)
    )
    return made


def of_kind(resources: list[Resource], kind: str) -> Resource:
    [found] = [each for each in resources if each["kind"] == kind]
    return found


def cluster_spec(resources: list[Resource]) -> dict[str, Any]:
    [ray] = [each["spec"] for each in resources if each["kind"] in RAY_KINDS]
    spec: dict[str, Any] = (
        ray.get("rayClusterSpec") or ray.get("jobTemplate", {}).get("rayClusterSpec") or ray
    )
    return spec


def pods(value: Any) -> Iterator[dict[str, Any]]:
    """Yields every pod template in a resource."""
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            yield value
        for each in value.values():
            yield from pods(each)
    elif isinstance(value, list):
        for each in value:
            yield from pods(each)


def containers(resources: list[Resource]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yields (pod spec, container), init containers too."""
    for pod in pods(resources):
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
            yield pod["spec"], container


# -- schemas ---------------------------------------------------------------------------


def test_every_file_is_used_by_a_kustomization() -> None:
    used = {FOLDER / "base" / "settings.env"}
    for kustomization in FOLDER.rglob("kustomization.yaml"):
        rules = yaml.safe_load(kustomization.read_text())
        used |= {
            kustomization,
            *(kustomization.parent / name for name in rules.get("resources", [])),
        }
        used |= {
            kustomization.parent / name
            for each in rules.get("configMapGenerator", [])
            for name in each.get("files", [])
        }
    assert {path for path in FOLDER.rglob("*") if path.is_file()} == {
        path for path in used if path.is_file()
    }


@pytest.mark.parametrize("name", [*OVERLAYS, *COMPONENTS])
def test_kubectl_builds_the_same_manifests(name: str, tmp_path: Path) -> None:
    kubectl = program("kubectl", "any version with kustomize 5")
    if name in OVERLAYS:
        folder, ours = FOLDER / name, build(FOLDER / name)
        args = [kubectl, "kustomize", str(folder)]
    else:
        overlay = FOLDER / f".{name}"
        overlay.mkdir()
        try:
            rules = yaml.safe_load((FOLDER / "cluster" / "kustomization.yaml").read_text()) | {
                "components": [f"../components/{name}"]
            }
            (overlay / "kustomization.yaml").write_text(yaml.safe_dump(rules))
            ours = build(overlay)
            args = [kubectl, "kustomize", str(overlay)]
            done = subprocess.run(args, capture_output=True, text=True, timeout=60, check=False)
        finally:
            (overlay / "kustomization.yaml").unlink()
            overlay.rmdir()
    if name in OVERLAYS:
        done = subprocess.run(args, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert by_name(list(yaml.safe_load_all(done.stdout))) == by_name(ours)


def by_name(resources: list[Resource]) -> dict[tuple[str, str], Resource]:
    return {(each["kind"], each["metadata"]["name"]): each for each in resources}


def test_ray_resources_match_kuberay_schemas(
    built: dict[str, list[Resource]], tmp_path: Path
) -> None:
    if not CRDS.exists():
        pytest.skip("KubeRay's CRDs are not beside this checkout: ../shared/tools/kuberay-crds")
    for name, resources in built.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(resources))
        done = crds(tmp_path / f"{name}.yaml")
        assert done.returncode == 0, done.stdout
    mistaken = yaml.safe_load(yaml.safe_dump(of_kind(built["cluster"], "RayCluster")))
    mistaken["spec"]["headGroupSpec"]["rayStartParameters"] = {}
    (tmp_path / "mistaken.yaml").write_text(yaml.safe_dump(mistaken))
    assert "rayStartParameters" in crds(tmp_path / "mistaken.yaml").stdout


def crds(path: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(CRDS), str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


VALIDATE = """
import json, sys
import kubernetes_validate as k
for each in json.load(sys.stdin):
    try:
        k.validate(each, "1.33", strict=True)
    except k.ValidationError as error:
        print(each["kind"], ".".join(map(str, error.path)), error.message[:200])
"""


def test_other_resources_match_kubernetes_schemas(built: dict[str, list[Resource]]) -> None:
    python = python_with("kubernetes_validate")

    def wrong(resources: list[Resource]) -> str:
        own = [
            each
            for each in resources
            if "." not in each["apiVersion"].split("/")[0]
            or each["apiVersion"].split("/")[0].endswith("k8s.io")
        ]
        done = subprocess.run(
            [python, "-c", VALIDATE],
            input=json.dumps(own),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout

    for resources in built.values():
        assert wrong(resources) == ""
        # Pods inside of Ray's resources have their schema in the CRDs in part only: they are looked
        # at as pods here.
        made = [
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod["spec"]}
            for pod in pods(resources)
        ]
        assert wrong(made) == ""
    mistaken = yaml.safe_load(yaml.safe_dump(of_kind(built["cronjob"], "CronJob")))
    mistaken["spec"]["concurrencypolicy"] = "Forbid"
    assert "concurrencypolicy" in wrong([mistaken])


# -- consistency -----------------------------------------------------------------------


def test_versions_match_lock_file_and_project(
    built: dict[str, list[Resource]],
) -> None:
    [ray] = re.findall(
        r"^ray\[?[a-z]*\]?==([\d.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
    for resources in built.values():
        assert cluster_spec(resources)["rayVersion"] == ray
        images = {container["image"] for _, container in containers(resources)}
        tagged = {image.partition("@")[0] for image in images}
        assert tagged == {f"registry.example.com/grok-batch:{VERSION}", "amazon/aws-cli:2.15.0"}
        for image in images:
            assert re.search(r"@sha256:[0-9a-f]{64}$", image), "a tag can be moved"


def test_overlays_run_the_same_cluster(built: dict[str, list[Resource]]) -> None:
    assert (
        cluster_spec(built["job"])
        == cluster_spec(built["nightly"])
        == cluster_spec(built["cluster"])
        == cluster_spec(built["cronjob"])
    )
    assert [each for each in built["job"] + built["nightly"] if each["kind"] == "RayCluster"] == []


def test_referenced_objects_exist(built: dict[str, list[Resource]]) -> None:
    for name, resources in built.items():
        there = {(each["kind"], each["metadata"]["name"]) for each in resources}
        assert {
            each["metadata"].get("namespace") for each in resources if each["kind"] != "Namespace"
        } == {"grok-batch"}
        for spec, container in containers(resources):
            assert ("ServiceAccount", spec["serviceAccountName"]) in there
            for source in container.get("envFrom", []):
                assert ("ConfigMap", source["configMapRef"]["name"]) in there
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= {volume["name"] for volume in spec.get("volumes", [])}
        for pod in pods(resources):
            assert pod["metadata"]["labels"]["grok-batch/role"] in {
                "head",
                "worker",
                "submitter",
            }, "or the network policy forgets it"
        assert cluster_spec(resources)["authOptions"] == {
            "mode": "token",
            "secretName": "grok-batch-token",
        }
        if name in {"job", "nightly", "cronjob"}:
            assert ("ConfigMap", "grok-batch-job") in there
    cron = json.dumps(of_kind(built["cronjob"], "CronJob"), sort_keys=True)
    cluster = of_kind(built["cronjob"], "RayCluster")["metadata"]["name"]
    assert f"http://{cluster}-head-svc:8265" in cron  # KubeRay's name of the head's service
    assert '{"key": "auth_token", "name": "grok-batch-token"}' in cron


def test_pods_have_minimal_rights(built: dict[str, list[Resource]]) -> None:
    for name, resources in built.items():
        for spec, container in containers(resources):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"]["drop"] == ["ALL"]
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["runAsUser"] == 10001  # the Dockerfile's
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            root = own.get("runAsUser") == 0
            assert root == (container["name"] == "own-cache"), f"{name}: {container['name']}"
            assert {"requests", "limits"} <= set(container["resources"])
            assert (
                container["resources"]["limits"]["memory"]
                == container["resources"]["requests"]["memory"]
            )
        policy = of_kind(resources, "NetworkPolicy")["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert all(rule.get("from") for rule in policy["ingress"]), (
            "somebody may come in from anywhere"
        )
        assert "Secret" not in {each["kind"] for each in resources}
    assert "10001:10001" in (ROOT / "infra" / "image" / "Dockerfile").read_text()


# https://kubernetes.io/docs/concepts/security/pod-security-standards/, version 1.33
RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected"}
HOST_FIELDS = {"hostNetwork", "hostPID", "hostIPC", "hostUsers"}


def test_namespace_enforces_the_restricted_standard(built: dict[str, list[Resource]]) -> None:
    """Only the component that keeps weights on the node's disk needs more, and says so."""
    for name, resources in built.items():
        labels = of_kind(resources, "Namespace")["metadata"]["labels"]
        level = "privileged" if name == "with components" else "restricted"
        assert labels["pod-security.kubernetes.io/enforce"] == level
        if level == "privileged":
            continue
        for pod in pods(resources):
            assert not HOST_FIELDS & set(pod["spec"])
            for volume in pod["spec"].get("volumes", []):
                assert set(volume) - {"name"} <= RESTRICTED_VOLUMES
        for spec, container in containers(resources):
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert own.get("runAsNonRoot", True) is True
            assert own.get("privileged", False) is False
        autoscaler = cluster_spec(resources)["autoscalerOptions"]["securityContext"]
        assert autoscaler == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_only_the_autoscaler_has_a_service_account_token(built: dict[str, list[Resource]]) -> None:
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    for resources in built.values():
        assert of_kind(resources, "ServiceAccount")["automountServiceAccountToken"] is False
        for pod in pods(resources):
            assert pod["spec"]["automountServiceAccountToken"] is False
        for _, container in containers(resources):
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            assert not [path for path in paths if path.startswith("/var/run/secrets")]
        cluster = cluster_spec(resources)
        [mount] = cluster["autoscalerOptions"]["volumeMounts"]
        assert (mount["mountPath"], mount["readOnly"]) == (folder, True)
        volumes = cluster["headGroupSpec"]["template"]["spec"]["volumes"]
        [projected] = [volume["projected"] for volume in volumes if volume["name"] == mount["name"]]
        sources = {next(iter(source)) for source in projected["sources"]}
        assert sources == {"serviceAccountToken", "configMap", "downwardAPI"}


def test_worker_is_one_machine_and_one_replica(built: dict[str, list[Resource]]) -> None:
    [group] = cluster_spec(built["cluster"])["workerGroupSpecs"]
    [worker] = group["template"]["spec"]["containers"]
    assert (
        worker["resources"]["limits"]["nvidia.com/gpu"]
        == worker["resources"]["requests"]["nvidia.com/gpu"]
        == "8"
    )
    assert (group["minReplicas"], group["rayStartParams"]["num-gpus"]) == (0, "8")
    assert cluster_spec(built["cluster"])["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for name, file, kind in (
        ("job", "job.yaml", ScoreConfig),
        ("nightly", "nightly.yaml", EvaluateConfig),
    ):
        settings = yaml.safe_load((FOLDER / name / file).read_text())
        assert settings["replicas"] == f"1:{group['maxReplicas']}"
        assert settings["device"] == "gpu", (
            "auto would take CPUs: no GPU machine is there when the job starts"
        )
        flags = [
            "-C",
            str(FOLDER / name / file),
            *(["-i", "x", "-o", "y"] if kind is ScoreConfig else []),
        ]
        assert (
            parse(kind, flags, program="", description="").mesh_shape() == (1, 8)
            if kind is ScoreConfig
            else True
        )
        weights = dict(
            line.split("=", 1)
            for line in (FOLDER / "base" / "settings.env").read_text().splitlines()
            if "=" in line
        )
        assert settings["checkpoint"] == weights["WEIGHTS_URL"]
    assert (FOLDER / "cronjob" / "nightly.yaml").read_text() == (
        FOLDER / "nightly" / "nightly.yaml"
    ).read_text()


def commands(built: dict[str, list[Resource]]) -> dict[str, list[str]]:
    """Returns what jobs/submit.py is called with, by overlay."""
    [container] = of_kind(built["cronjob"], "CronJob")["spec"]["jobTemplate"]["spec"]["template"][
        "spec"
    ]["containers"]
    return {
        "job": shlex.split(of_kind(built["job"], "RayJob")["spec"]["entrypoint"])[1:],
        "nightly": shlex.split(
            of_kind(built["nightly"], "RayCronJob")["spec"]["jobTemplate"]["entrypoint"]
        )[1:],
        "cronjob": [container["command"][1], *container["args"]],
    }


@pytest.mark.parametrize("name", ["job", "nightly", "cronjob"])
def test_commands_have_valid_flags(name: str, built: dict[str, list[Resource]]) -> None:
    script, *words = commands(built)[name]
    assert (ROOT / "jobs" / Path(script).name).is_file()
    flags, command = split_command_line(words)
    config = parse(SubmitConfig, flags, program="", description="")
    assert config.accepted(3) == config.accepted(0) == 0
    assert config.here == (name != "cronjob")
    assert config.detach == (name == "cronjob")
    python, inner, *inner_flags = command
    assert python == "python"
    assert (ROOT / inner.removeprefix("/opt/grok-batch/")).is_file()
    mounted = {
        f"/etc/grok-batch/{key}"
        for key in by_name(built[name])["ConfigMap", "grok-batch-job"]["data"]
    }
    asked = parse_inner(
        name,
        [
            word
            for word in inner_flags
            if word not in mounted and not word.startswith(("-C", "--config"))
        ],
    )
    assert asked.output
    assert mounted & {word.partition("=")[2] or word for word in inner_flags}


def parse_inner(name: str, flags: list[str]) -> Any:
    if name == "job":
        return parse(
            ScoreConfig,
            [*flags, "-C", str(FOLDER / "job" / "job.yaml")],
            program="",
            description="",
        )
    return parse(
        EvaluateConfig,
        [*flags, "-C", str(FOLDER / "nightly" / "nightly.yaml")],
        program="",
        description="",
    )


def test_night_starts_at_its_schedule(built: dict[str, list[Resource]]) -> None:
    for name, kind in (("nightly", "RayCronJob"), ("cronjob", "CronJob")):
        spec = of_kind(built[name], kind)["spec"]
        minute, hour, *rest = spec["schedule"].split()
        assert (rest, spec["timeZone"]) == (["*", "*", "*"], "Etc/UTC")
        flags, command = split_command_line(commands(built)[name][1:])
        assert (
            parse(SubmitConfig, flags, program="", description="").night_begins
            == f"{int(hour):02}:{int(minute):02}"
        )
        assert any("{night}" in word for word in command)
        limit = (
            spec["jobTemplate"].get("activeDeadlineSeconds")
            or spec["jobTemplate"]["spec"]["activeDeadlineSeconds"]
        )
        assert limit < 24 * 3600, "a night ends before the next one begins"


def test_cronjob_retries_the_exit_codes_of_submit(
    built: dict[str, list[Resource]],
) -> None:
    rules = of_kind(built["cronjob"], "CronJob")["spec"]["jobTemplate"]["spec"]["podFailurePolicy"][
        "rules"
    ]
    [final] = [rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "FailJob"]
    assert set(final) == set(FINAL_CODES) - {0, 3}  # those are accepted


def test_pod_failure_policy_is_one_that_kubernetes_accepts(
    built: dict[str, list[Resource]],
) -> None:
    """Validations of the API that no schema contains (kubernetes: pkg/apis/batch/validation)."""
    job = of_kind(built["cronjob"], "CronJob")["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "required by podFailurePolicy"
    names = {container["name"] for container in pod["containers"]}
    rules = job["podFailurePolicy"]["rules"]
    assert len(rules) <= 20
    for rule in rules:
        assert rule["action"] in {"FailJob", "Ignore", "Count"}
        assert ("onExitCodes" in rule) != ("onPodConditions" in rule)
        codes = rule.get("onExitCodes")
        if codes is None:
            continue
        assert codes["containerName"] in names
        assert codes["operator"] in {"In", "NotIn"}
        assert codes["values"] == sorted(set(codes["values"]))
        assert 0 not in codes["values"], "In never matches a success"


# Kinds of Kubernetes that have the subresource `scale`. The CRDs of KubeRay have none.
SCALABLE = {"Deployment", "ReplicaSet", "StatefulSet", "ReplicationController"}


def test_disruption_budgets_can_be_computed(built: dict[str, list[Resource]]) -> None:
    """maxUnavailable and percentages need `scale` of the pods' owner: else no eviction is allowed.

    The owner of the pods is a RayCluster (kubernetes: pkg/controller/disruption, getExpectedScale).
    """
    for resources in built.values():
        assert SCALABLE & {resource["kind"] for resource in resources} == set()
        budgets = [
            resource["spec"] for resource in resources if resource["kind"] == "PodDisruptionBudget"
        ]
        assert len(budgets) == 1
        for budget in budgets:
            assert set(budget) == {"minAvailable", "selector"}
            assert type(budget["minAvailable"]) is int
            assert budget["selector"] == {"matchLabels": {"grok-batch/role": "head"}}, (
                "a drain of a GPU machine hands its rows back: no budget may stop it"
            )


def test_logs_of_every_ray_pod_go_to_a_sidecar(built: dict[str, list[Resource]]) -> None:
    """Native sidecars end after the pod's containers, so that the last lines are printed."""
    assert (ROOT / "infra" / "image" / "follow_logs.py").is_file()
    for resources in built.values():
        spec = cluster_spec(resources)
        groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
        for group in groups:
            pod = group["template"]["spec"]
            [sidecar] = [each for each in pod["initContainers"] if each["name"] == "logs"]
            assert sidecar["restartPolicy"] == "Always"
            python, script, folder = sidecar["command"]
            assert (python, script) == ("python", "infra/image/follow_logs.py")
            [mount] = sidecar["volumeMounts"]
            assert folder == mount["mountPath"]
            assert mount == {"name": "ray", "mountPath": "/tmp/ray", "readOnly": True}
            ray_mounts = pod["containers"][0]["volumeMounts"]
            assert {"name": "ray", "mountPath": "/tmp/ray"} in ray_mounts


def egress_addresses(resources: list[Resource]) -> dict[str, list[int]]:
    """Returns ports by address of a network policy."""
    addresses: dict[str, list[int]] = {}
    for rule in of_kind(resources, "NetworkPolicy")["spec"]["egress"]:
        for peer in rule.get("to", []):
            if "ipBlock" in peer:
                cidr = peer["ipBlock"]["cidr"]
                addresses[cidr] = [port["port"] for port in rule["ports"]]
    return addresses


def test_metadata_servers_are_reachable_where_they_give_credentials(
    built: dict[str, list[Resource]],
) -> None:
    """GKE: "Workload Identity Federation for GKE", network policies. EKS: the machine's role."""
    identity = {"169.254.170.23/32": [80]}
    for name in OVERLAYS:
        assert egress_addresses(built[name]) == identity, name
    gke = {"169.254.169.252/32": [987, 988], "169.254.169.254/32": [80]}
    assert egress_addresses(built["with components"]) == identity | gke


def test_ephemeral_storage_holds_the_weights_that_are_in_the_pod(
    built: dict[str, list[Resource]],
) -> None:
    for name, resources in built.items():
        [group] = cluster_spec(resources)["workerGroupSpecs"]
        pod = group["template"]["spec"]
        [weights] = [volume for volume in pod["volumes"] if volume["name"] == "weights"]
        requested = pod["containers"][0]["resources"]["requests"]["ephemeral-storage"]
        if name == "with components":
            assert "hostPath" in weights
            assert requested == "50Gi"
            local_ssd = {"cloud.google.com/gke-ephemeral-storage-local-ssd": "true"}
            assert pod["nodeSelector"] == local_ssd
        else:
            assert weights["emptyDir"]["sizeLimit"] == requested == "400Gi"


def test_components_can_be_added_to_every_overlay(tmp_path: Path) -> None:
    """The cluster of a job has them too: components change it before it is copied into the job."""
    for name in OVERLAYS:
        folder = tmp_path / name
        shutil.copytree(FOLDER, folder)
        path = folder / name / "kustomization.yaml"
        rules = yaml.safe_load(path.read_text())
        rules["components"] = [f"../components/{component}" for component in COMPONENTS]
        path.write_text(yaml.safe_dump(rules))
        resources = build(folder / name)
        spec = cluster_spec(resources)
        assert spec["gcsFaultToleranceOptions"]["backend"] == "rocksdb"
        worker = spec["workerGroupSpecs"][0]["template"]["spec"]
        assert worker["initContainers"][0]["name"] == "own-cache"
        reconnect = {"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": "600"}
        assert reconnect in worker["containers"][0]["env"]
        assert of_kind(resources, "PodMonitor")["spec"]["podMetricsEndpoints"]


def test_operator_rules_equal_prometheus_rules(built: dict[str, list[Resource]]) -> None:
    assert of_kind(built["with components"], "PrometheusRule")["spec"] == yaml.safe_load(
        RULES.read_text()
    )
    ports = {
        port["name"]
        for pod in pods(built["with components"])
        for each in pod["spec"]["containers"]
        for port in each.get("ports", [])
    }
    monitor = of_kind(built["with components"], "PodMonitor")["spec"]
    assert {each["port"] for each in monitor["podMetricsEndpoints"]} <= ports


FAKE_AWS = """#!/bin/sh
echo "$@" >> "$LOG"
[ "$1" = configure ] || { [ -z "$FAIL" ] && mkdir -p "$6" && echo weights > "$6/manifest.json"; }
"""


@pytest.mark.parametrize("case", ["filled", "whole already", "empty url", "fails"])
def test_weight_cache_is_marked_last(
    case: str, built: dict[str, list[Resource]], tmp_path: Path
) -> None:
    """Runs the shell of both init containers; fake `aws` and `python` record their arguments."""
    [group] = cluster_spec(built["cluster"])["workerGroupSpecs"]
    fetch, check, _ = group["template"]["spec"]["initContainers"]
    weights, log, programs = tmp_path / "weights", tmp_path / "log", tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "aws": FAKE_AWS,
        "python": '#!/bin/sh\necho python "$@" >> "$LOG"\n',
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    log.touch()
    mark = weights / "bucket" / "grok-1.complete"
    if case == "whole already":
        mark.parent.mkdir(parents=True)
        mark.write_text("s3://bucket/grok-1\n")
    url = "" if case == "empty url" else "s3://bucket/grok-1/"
    env = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "WEIGHTS_URL": url,
        "LOG": str(log),
        "FAIL": "yes" if case == "fails" else "",
    }
    codes = []
    for container in (fetch, check):
        script = container["args"][0].replace("/weights/", f"{weights}/")
        codes.append(
            subprocess.run([*container["command"], script], env=env, check=False).returncode
        )
        if codes[-1]:
            break  # Kubernetes begins again with this one
    asked = log.read_text().splitlines()
    if case == "filled":
        assert codes == [0, 0]
        folder = weights / "bucket" / "grok-1"
        assert asked[:2] == [
            "configure set default.s3.preferred_transfer_client crt",
            "configure set default.s3.multipart_chunksize 64MB",
        ]
        assert asked[2:] == [
            f"s3 sync --only-show-errors --delete s3://bucket/grok-1/ {folder}",
            f"python jobs/verify_checkpoint.py --checkpoint {folder}",
        ]
        assert mark.read_text() == "s3://bucket/grok-1\n"
    elif case == "fails":
        assert codes == [1]
        assert not mark.exists()
    else:
        assert (codes, asked) == ([0, 0], [])
