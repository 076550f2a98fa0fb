"""Scripts of infra/terraform/node, run for real against an HTTP S3 server and fake commands."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import fsspec
import pytest

from actors.compile_cache import compile_cache
from actors.weights.node_cache import VARIABLE, node_copy
from tests.infra.cloud import Commands, metadata, serve
from tests.infra.nvidia import Gpus

ROOT = Path(__file__).parents[2]
NODE = ROOT / "infra" / "terraform" / "node"
DEMO = ROOT / "jobs" / "demo" / "ckpt-0"
AWS_COMMAND = str(Path(__file__).with_name("aws_command.py"))
AWS = f"os.execv(sys.executable, [sys.executable, {AWS_COMMAND!r}, *args])"


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    (tmp_path / "ssm").mkdir()
    made = Commands(tmp_path)
    made.fake("aws", AWS)
    return made


def run(
    script: str, *arguments: object, commands: Commands, **env: str
) -> "subprocess.CompletedProcess[str]":
    settings = {
        "CLUSTER": "test",
        "METRIC_NAMESPACE": "GrokBatch",
        "SCALING": "ray",
        "ROLE": "worker",
        "ASG_NAME": "test-workers",
        "LIFECYCLE_HOOK": "test-drain",
        "BOOTS_URL": "s3://runs/cluster/boots/1",
        "LEAVE_PAUSE_S": "0",
        "HOOK_PAUSE_S": "0",
        "HOOK_ATTEMPTS": "3",
    }
    # leads to the test's S3 server
    stores = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    stores["FAKE_SSM"] = str(commands.folder.parent / "ssm")
    everything = commands.env(**settings | stores | env)
    return subprocess.run(
        [str(NODE / script), *map(str, arguments)],
        env=everything,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# -- weights ---------------------------------------------------------------------------


@pytest.fixture
def weights_url(s3_url: str) -> str:
    """The demo's checkpoint in a bucket."""
    url = f"{s3_url}/models/demo"
    fsspec.filesystem("s3").put(f"{DEMO}/", url, recursive=True)
    return url


def fill(
    url: str, cache: Path, commands: Commands, **env: str
) -> "subprocess.CompletedProcess[str]":
    more = {"WEIGHTS_MODEL": "demo", "WEIGHTS_PYTHON": sys.executable, "WEIGHTS_PAUSE_S": "0"}
    return run("weights.sh", url, cache, commands=commands, **more | env)


@pytest.mark.s3
def test_weights_are_copied_once_and_verified(
    weights_url: str, tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "nvme"
    for _ in range(2):  # as after a reboot
        done = fill(weights_url, cache, commands)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "nothing wrong" in done.stdout
    copy = cache / weights_url.removeprefix("s3://")
    assert sorted(path.name for path in copy.iterdir()) == sorted(
        path.name for path in DEMO.iterdir()
    )
    monkeypatch.setenv(VARIABLE, str(cache))
    assert node_copy(weights_url) == str(copy)


@pytest.mark.s3
def test_partial_copy_is_completed_and_unknown_files_removed(
    weights_url: str, tmp_path: Path, commands: Commands
) -> None:
    copy = tmp_path / "nvme" / weights_url.removeprefix("s3://")
    copy.mkdir(parents=True)
    first, second, *_ = sorted(DEMO.iterdir())
    (copy / first.name).write_bytes(first.read_bytes()[:-1])
    shutil.copy(second, copy)
    (copy / "tensor99999_000").write_bytes(b"of another model")
    done = fill(weights_url, tmp_path / "nvme", commands)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (copy / "tensor99999_000").exists()


@pytest.mark.s3
def test_damaged_weights_get_no_marker(
    weights_url: str, tmp_path: Path, commands: Commands
) -> None:
    files = fsspec.filesystem("s3")
    victim = sorted(files.ls(weights_url, detail=False))[3]
    whole = files.cat_file(victim)
    files.pipe_file(victim, b"\0" * 4096 + whole[4096:])
    cache = tmp_path / "nvme"
    mark = Path(f"{cache}/{weights_url.removeprefix('s3://')}.complete")
    mark.parent.mkdir(parents=True)
    mark.write_text(weights_url)  # of an earlier, whole copy
    done = fill(weights_url, cache, commands)
    assert done.returncode != 0
    assert victim.rsplit("/", 1)[-1] in done.stdout + done.stderr
    assert not mark.exists()


@pytest.mark.s3
def test_weights_copy_is_tried_three_times(
    weights_url: str, tmp_path: Path, commands: Commands
) -> None:
    commands.fake("aws", "sys.exit('fatal error: 503' if args[:2] == ['s3', 'sync'] else 0)")
    done = fill(weights_url, tmp_path / "nvme", commands)
    assert done.returncode == 1
    assert "could not be copied in 3 attempts" in done.stderr
    assert len(commands.called("aws", "s3", "sync")) == 3
    assert list(tmp_path.rglob("*.complete")) == []


def test_weights_need_a_bucket_and_a_folder(tmp_path: Path, commands: Commands) -> None:
    done = fill("/disk/grok-1", tmp_path, commands)
    assert done.returncode == 2
    assert "expected s3://BUCKET/PREFIX, got /disk/grok-1" in done.stderr


# -- token -----------------------------------------------------------------------------

TOKEN = {
    "TOKEN_PARAMETER": "/test/ray-auth-token",
    "KMS_KEY_ARN": "arn:aws:kms:…",
    "TOKEN_PAUSE_S": "0",
    "TOKEN_ATTEMPTS": "3",
}


def test_head_creates_the_token_that_workers_read(tmp_path: Path, commands: Commands) -> None:
    tokens = []
    for role in ("head", "head", "worker"):
        file = tmp_path / f"token-{len(tokens)}"
        done = run("token.sh", file, commands=commands, **TOKEN, ROLE=role)
        assert done.returncode == 0, done.stderr
        assert file.stat().st_mode & 0o777 == 0o600
        tokens.append(file.read_text())
    assert len(set(tokens)) == 1
    assert re.fullmatch("[0-9a-f]{64}", tokens[0])
    assert len(commands.called("aws", "ssm", "put-parameter")) == 1
    assert tokens[0] not in commands.log.read_text(), "it must not stand in a command line"


def test_worker_waits_for_the_token_and_reports_failures(
    tmp_path: Path, commands: Commands
) -> None:
    done = run("token.sh", tmp_path / "token", commands=commands, **TOKEN)
    assert done.returncode == 1
    assert "could not be read in 3 attempts" in done.stderr
    assert "ParameterNotFound" in done.stderr
    assert len(commands.called("aws", "ssm", "get-parameter")) == 3
    assert commands.called("aws", "ssm", "put-parameter") == [], (
        "a token of the worker's own would be another cluster's"
    )


# -- leaving, logs, disks --------------------------------------------------------------


def test_head_never_leaves_its_group(commands: Commands) -> None:
    done = run("leave.sh", "WorkerGaveUp", "boot failed", commands=commands, ROLE="head")
    assert (done.returncode, commands.calls()) == (0, [])
    assert "a head stays" in done.stderr


def test_worker_that_its_group_holds_back_shuts_down(commands: Commands) -> None:
    commands.fake("aws", "sys.exit(args[0] == 'autoscaling')")
    commands.fake("systemctl")
    with serve(metadata()) as imds:
        done = run(
            "leave.sh",
            "WorkerGaveUp",
            "boot failed",
            commands=commands,
            SCALING="asg",
            IMDS=imds.url,
        )
    assert done.returncode == 0, done.stderr
    assert commands.called("systemctl", "poweroff")
    assert "the group did not let go of i-0123456789abcdef0" in done.stderr


GROUP_STATE = "autoscaling/target-lifecycle-state"


@pytest.mark.parametrize(
    ("metric", "decrement"),
    [
        ("WorkerIdle", "--should-decrement-desired-capacity"),
        ("WorkerGaveUp", "--should-decrement-desired-capacity"),
        ("GpuFailed", "--no-should-decrement-desired-capacity"),
        ("BootFailed", "--no-should-decrement-desired-capacity"),
    ],
)
def test_leaving_worker_answers_the_hook_itself(
    metric: str, decrement: str, tmp_path: Path, commands: Commands
) -> None:
    """Otherwise the group waits for 900 s at full price."""
    commands.fake("aws")
    commands.fake("systemctl")
    (tmp_path / "boot.log").write_text("weights: no such bucket\n")
    with serve(metadata(**{GROUP_STATE: "Terminated"})) as imds:
        done = run(
            "leave.sh",
            metric,
            "the reason",
            commands=commands,
            SCALING="asg",
            IMDS=imds.url,
            BOOT_LOG=str(tmp_path / "boot.log"),
        )
    assert done.returncode == 0, done.stderr
    end, hook = commands.called("aws", "autoscaling")
    assert end[2:4] == ["terminate-instance-in-auto-scaling-group", "--instance-id"]
    assert end[-1] == decrement
    assert hook[2] == "complete-lifecycle-action"
    assert {"test-workers", "test-drain", "i-0123456789abcdef0", "CONTINUE"} <= set(hook)
    assert commands.called("systemctl") == [], "the group ends the machine"
    assert len(commands.called("aws", "s3", "cp")) == (metric == "BootFailed")


def test_hook_that_is_not_answered_does_not_keep_the_worker(commands: Commands) -> None:
    commands.fake("aws")
    commands.fake("systemctl")
    with serve(metadata(**{GROUP_STATE: "InService"})) as imds:
        done = run(
            "leave.sh", "WorkerIdle", "idle", commands=commands, SCALING="asg", IMDS=imds.url
        )
    assert commands.called("systemctl", "poweroff")
    assert "the hook test-drain could not be completed" in done.stderr


def test_reason_of_a_failed_boot_is_written_with_the_end_of_its_log(
    tmp_path: Path, commands: Commands
) -> None:
    written = tmp_path / "written"
    commands.fake(
        "aws", f"args[:2] == ['s3', 'cp'] and open({str(written)!r}, 'w').write(sys.stdin.read())"
    )
    commands.fake("systemctl")
    (tmp_path / "boot.log").write_text("weights: no such bucket\n")
    with serve(metadata()) as imds:
        run(
            "leave.sh",
            "BootFailed",
            "the worker could not be set up",
            commands=commands,
            IMDS=imds.url,
            BOOT_LOG=str(tmp_path / "boot.log"),
        )
    assert written.read_text() == "the worker could not be set up\nweights: no such bucket\n"
    ((*_, url),) = commands.called("aws", "s3", "cp")
    assert re.fullmatch(r"s3://runs/cluster/boots/1/\d{8}T\d{6}Z-i-0123456789abcdef0-failed", url)
    assert commands.called("systemctl", "poweroff")


def test_worker_shuts_down_if_metrics_fail(commands: Commands) -> None:
    commands.fake("aws", "sys.exit(1)")
    commands.fake("systemctl")
    assert (
        run(
            "leave.sh", "WorkerGaveUp", "boot failed", commands=commands, LEAVE_PAUSE_S="0"
        ).returncode
        == 0
    )
    assert commands.called("systemctl", "poweroff")


@pytest.mark.parametrize(
    ("role", "groups"), [("head", {"/test/head", "/test/jobs"}), ("worker", {"/test/worker"})]
)
def test_logs_of_each_role_go_to_its_groups(
    role: str, groups: set[str], commands: Commands
) -> None:
    files = json.loads(run("logs.sh", commands=commands, ROLE=role).stdout)["logs"][
        "logs_collected"
    ]["files"]["collect_list"]
    assert {file["log_group_name"] for file in files} == groups
    assert {"{instance_id}"} == {file["log_stream_name"].split("/")[0] for file in files}
    streams = [(file["log_group_name"], file["log_stream_name"]) for file in files]
    assert len(set(streams)) == len(streams), "two files would be mixed"
    for file in files:
        patterns = "*" in file["file_path"]
        assert file.get("publish_multi_logs", False) == patterns, (
            "the agent follows the newest file of a pattern alone"
        )
    paths = {file["file_path"].rpartition("/")[2] for file in files}
    common = {"boot.log", "ray.log", "leave.log", "kernel.log", "cloud-init-output.log"}
    common |= {"worker-*.err", "worker-*.out", "raylet.*"}
    own = {"watch.log"} if role == "worker" else {"fleet.log", "nightly.log"}
    if role == "head":
        own |= {"job-driver-*.log", "monitor.*", "gcs_server.*"}
    assert paths == common | own


def test_instance_store_waits_for_the_image_service(tmp_path: Path, commands: Commands) -> None:
    """Its RAID service and nvme.sh would take the same disks."""
    commands.fake("systemctl")
    commands.fake("mountpoint", "sys.exit(args[-1] != '/opt/dlami/nvme')")
    commands.fake("mount")
    assert run("nvme.sh", tmp_path / "nvme", commands=commands).returncode == 0
    names = [" ".join(call[:3]) for call in commands.calls()]
    assert names.index("systemctl start dlami-nvme.service") < names.index(
        "mountpoint -q /opt/dlami/nvme"
    )


LSBLK = """print('''/dev/nvme0n1 Amazon Elastic Block Store
/dev/nvme2n1 Amazon EC2 NVMe Instance Storage
/dev/nvme1n1 Amazon EC2 NVMe Instance Storage''')"""


@pytest.mark.parametrize("fresh", [True, False], ids=["first boot", "reboot"])
def test_instance_store_is_striped_once_and_only_mounted_again(
    fresh: bool, tmp_path: Path, commands: Commands
) -> None:
    commands.fake("mountpoint", "sys.exit(1)")
    commands.fake("lsblk", LSBLK)
    commands.fake("mdadm", f"sys.exit(args[0] == '--assemble' and {fresh})")
    commands.fake("mkfs.xfs")
    commands.fake("mount")
    done = run("nvme.sh", tmp_path / "nvme", commands=commands)
    assert done.returncode == 0, done.stderr
    disks = ["/dev/nvme1n1", "/dev/nvme2n1"]
    created = commands.called("mdadm", "--create")
    assert [(call[-2:], "--raid-devices=2" in call) for call in created] == (
        [(disks, True)] if fresh else []
    )
    assert len(commands.called("mkfs.xfs")) == fresh, "a reboot must not empty the cache"
    assert commands.called("mount") == [
        ["mount", "-o", "noatime", "/dev/md/grok-batch", str(tmp_path / "nvme")]
    ]


def test_disks_mounted_by_the_image_stay_in_place(tmp_path: Path, commands: Commands) -> None:
    commands.fake("mountpoint", "sys.exit(args[-1] != '/opt/dlami/nvme')")
    commands.fake("mount")
    assert run("nvme.sh", tmp_path / "nvme", commands=commands).returncode == 0
    assert commands.called("mount") == [
        ["mount", "--bind", "/opt/dlami/nvme", str(tmp_path / "nvme")]
    ]


def test_machine_without_instance_store_is_refused(tmp_path: Path, commands: Commands) -> None:
    commands.fake("mountpoint", "sys.exit(1)")
    commands.fake("lsblk", "print('/dev/nvme0n1 Amazon Elastic Block Store')")
    done = run("nvme.sh", tmp_path / "nvme", commands=commands)
    assert done.returncode == 1
    assert "no instance store on this machine" in done.stderr


# -- Ray -------------------------------------------------------------------------------

RAY = {
    "GCS_PORT": "6379",
    "METRICS_PORT": "8080",
    "WORKER_GPUS": "8",
    "NVME": "/mnt/nvme",
    "JAX_CACHE_URL": "s3://bucket/cluster/jax-cache",
    "HEAD_IP_PARAMETER": "/test/head-ip",
}


def started(
    commands: Commands, tmp_path: Path, **env: str
) -> tuple[list[str], dict[str, str], str]:
    """Returns what ray_node.sh would start, with which environment, and what it said."""
    commands.fake(
        "start-ray", f"json.dump(dict(os.environ), open({str(tmp_path / 'environment')!r}, 'w'))"
    )
    (tmp_path / "state").mkdir(exist_ok=True)
    commands.fake("python3.12", "os.execv(sys.executable, [sys.executable, *args])")
    commands.fake("nvidia-smi", Gpus().body())
    with serve(metadata()) as imds:
        done = run(
            "ray_node.sh",
            commands=commands,
            IMDS=imds.url,
            RAY="start-ray",
            STATE=str(tmp_path / "state"),
            **RAY | env,
        )
    assert done.returncode == 0, done.stderr
    ((_, *flags),) = commands.called("start-ray")
    return flags, json.loads((tmp_path / "environment").read_text()), done.stderr


def test_worker_joins_the_head_with_token_and_weight_cache(
    tmp_path: Path, commands: Commands
) -> None:
    (tmp_path / "ssm" / "test.head-ip").write_text("10.42.0.10")
    flags, environment, _ = started(commands, tmp_path)
    options = dict(itertools.pairwise(flags))
    assert (options["--address"], options["--num-gpus"], options["--node-ip-address"]) == (
        "10.42.0.10:6379",
        "8",
        "127.0.0.2",
    )
    assert "--head" not in flags
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_JOB_STOP_WAIT_TIME_S"] == "120"
    assert environment["RAY_AUTH_TOKEN_PATH"] == "/etc/grok-batch/ray-auth-token"
    assert environment["RAY_CLOUD_INSTANCE_ID"] == "i-0123456789abcdef0"
    assert environment[VARIABLE] == "/mnt/nvme/weights"
    cache = compile_cache(environment)
    assert cache.url == "s3://bucket/cluster/jax-cache"
    assert cache.folder.is_relative_to("/mnt/nvme/caches"), "the large disk of the machine"
    assert (tmp_path / "state" / "ray-address").read_text().strip() == "10.42.0.10:6379"


def test_worker_with_a_faulty_gpu_does_not_join(tmp_path: Path, commands: Commands) -> None:
    commands.fake("start-ray")
    commands.fake("python3.12", "os.execv(sys.executable, [sys.executable, *args])")
    commands.fake("nvidia-smi", Gpus(number=7).body())
    with serve(metadata()) as imds:
        done = run(
            "ray_node.sh",
            commands=commands,
            IMDS=imds.url,
            RAY="start-ray",
            STATE=str(tmp_path),
            **RAY,
        )
    assert done.returncode != 0
    assert "expected 8 GPUs, nvidia-smi lists 7" in done.stderr
    assert commands.called("start-ray") == []


@pytest.mark.s3
def test_head_dashboard_is_local_and_autoscaler_optional(
    tmp_path: Path, commands: Commands, s3_url: str
) -> None:
    url = f"{s3_url}/cluster/autoscaler.yaml"
    fsspec.filesystem("s3").pipe_file(url, b"cluster_name: test\n")
    flags, _, said = started(commands, tmp_path, ROLE="head", AUTOSCALER_URL=url)
    options = dict(itertools.pairwise(flags))
    assert options["--dashboard-host"] == "127.0.0.1"
    assert (options["--num-cpus"], options["--num-gpus"]) == ("0", "0")
    path = Path(options["--autoscaling-config"])
    assert path.read_text() == "cluster_name: test\n"
    (tmp_path / "state" / "breaker-open").touch()
    path.write_text("lowered by fleet.py")
    commands.log.unlink()
    started(commands, tmp_path, ROLE="head", AUTOSCALER_URL=url)
    assert path.read_text() == "lowered by fleet.py", "a restart of Ray does not close the breaker"
    assert "nothing starts workers" not in said


@pytest.mark.s3
def test_head_without_autoscaler_configuration_starts(
    tmp_path: Path, commands: Commands, s3_url: str
) -> None:
    flags, _, said = started(
        commands, tmp_path, ROLE="head", AUTOSCALER_URL=f"{s3_url}/cluster/autoscaler.yaml"
    )
    assert "--head" in flags
    assert "--autoscaling-config" not in flags
    assert "nothing starts workers" in said


# -- release and first boot ------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A committed repository with the node's scripts and a lock file of one local wheel."""
    root = tmp_path / "checkout"
    shutil.copytree(
        ROOT / "infra" / "terraform",
        root / "infra" / "terraform",
        ignore=shutil.ignore_patterns(".terraform*", "__pycache__"),
    )
    wheel = tmp_path / "index" / "tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr(
            "tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        )
        archive.writestr(
            "tiny-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    (root / "requirements-cuda12.lock").write_text(
        f"tiny==1.0 --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}\n"
    )
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", "-C", str(root)]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "All"]):
        subprocess.run([*git, *words], check=True)
    return root


def release(
    checkout: Path, commands: Commands, *arguments: object
) -> "subprocess.CompletedProcess[str]":
    stores = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # a python3 with pip
    env = commands.env(
        **stores,
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS=str(checkout.parent / "index"),
        PATH=f"{commands.folder}:{path}",
    )
    command = [str(checkout / "infra" / "terraform" / "release.sh"), *map(str, arguments)]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
@pytest.mark.s3
def test_release_is_reproducible_and_installed_by_first_boot(
    checkout: Path, tmp_path: Path, commands: Commands, s3_url: str
) -> None:
    releases = f"{s3_url}/cluster/releases"
    outputs = []
    for folder in ("one", "two"):
        upload = ["--upload", releases] if folder == "one" else []
        done = release(checkout, commands, "1.2.3", "--output", tmp_path / folder, *upload)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1], "the same commit makes the same bytes"
    assert 'release_version = "1.2.3"' in outputs[0]
    digest = re.findall(r'release_sha256  = "([0-9a-f]{64})"', outputs[0])[0]
    with tarfile.open(tmp_path / "one" / "grok-batch-1.2.3.tar") as archive:
        names = archive.getnames()
    assert {"wheels/tiny-1.0-py3-none-any.whl", "release/infra/terraform/node/boot.sh"} <= set(
        names
    )
    again = release(
        checkout, commands, "1.2.3", "--output", tmp_path / "three", "--upload", releases
    )
    assert again.returncode == 1
    assert "releases are not replaced" in again.stderr

    done, machine = first_boot(
        tmp_path, commands, RELEASE_URL=f"{releases}/grok-batch-1.2.3.tar", RELEASE_SHA256=digest
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        machine / "opt" / "grok-batch" / "release" / "infra" / "terraform" / "node" / "boot.sh"
    ).exists()
    units = sorted(path.name for path in (machine / "etc" / "systemd" / "system").iterdir())
    assert units == sorted(path.name for path in (NODE / "systemd").iterdir())
    assert commands.called("systemctl", "enable", "--now", "--no-block", "grok-batch-boot.service")
    assert commands.called("shutdown") == [["shutdown", "-h", "+22"]], "the limit of a boot"


@pytest.mark.s3
@pytest.mark.parametrize("role", ["worker", "head"])
def test_first_boot_refuses_another_release_and_only_a_worker_ends(
    role: str, tmp_path: Path, commands: Commands, s3_url: str
) -> None:
    url = f"{s3_url}/cluster/releases/grok-batch-1.2.3.tar"
    fsspec.filesystem("s3").pipe_file(url, b"something else")
    boots = f"{s3_url}/cluster/boots/1"
    done, machine = first_boot(
        tmp_path,
        commands,
        RELEASE_URL=url,
        RELEASE_SHA256="0" * 64,
        ROLE=role,
        BOOTS_URL=boots,
    )
    assert done.returncode != 0
    assert "is not the release that Terraform names" in done.stderr
    assert not (machine / "opt" / "grok-batch").exists()
    limits = [["shutdown", "-h", "+22"], ["shutdown", "-h", "+2"]]
    assert commands.called("shutdown") == (limits if role == "worker" else [])
    reasons = fsspec.filesystem("s3").glob(f"{boots.removeprefix('s3://')}/*")
    if role == "head":
        assert reasons == []
        return
    [reason] = reasons
    assert reason.endswith("-i-0123456789abcdef0-failed")
    text = fsspec.filesystem("s3").cat_file(reason).decode()
    assert re.fullmatch(r"user data failed at line \d+\nthe end of the log\n", text)
    (metric,) = commands.called("aws", "cloudwatch", "put-metric-data")
    assert {"BootFailed", "Cluster=test", "GrokBatch"} <= set(metric)


AGENT = "amazon-cloudwatch-agent-ctl"


def first_boot(
    tmp_path: Path, commands: Commands, **settings: str
) -> tuple["subprocess.CompletedProcess[str]", Path]:
    """Runs the user data with all paths below a folder of the test."""
    machine = tmp_path / "machine"
    for folder in ("etc/systemd/system", "var/tmp", "opt/aws/amazon-cloudwatch-agent/bin"):
        (machine / folder).mkdir(parents=True)
    (machine / "var" / "log").mkdir()
    (machine / "var" / "log" / "cloud-init-output.log").write_text("the end of the log\n")
    agent = machine / "opt" / "aws" / "amazon-cloudwatch-agent" / "bin" / AGENT
    commands.fake(AGENT)
    agent.symlink_to(commands.folder / AGENT)
    template = (ROOT / "infra" / "terraform" / "user_data.sh.tftpl").read_text()
    values = {
        "ROLE": "worker",
        "RELEASE_VERSION": "1.2.3",
        "CLUSTER": "test",
        "METRIC_NAMESPACE": "GrokBatch",
        "BOOT_MINUTES": "20",
        **settings,
    }
    lines = "".join(f'{name}="{value}"\n' for name, value in values.items())
    script = re.sub(
        r"%\{ for .*?%\{ endfor ~\}\n", lambda _: lines, template, flags=re.DOTALL
    ).replace("${environment.ROLE}", values["ROLE"])
    script = script.replace("$${", "${")
    script = re.sub(r"(?<![\w.])/(etc|opt|var)/", rf"{machine}/\1/", script)
    for name in ("dnf", "systemctl", "shutdown"):
        commands.fake(name)
    stores = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with serve(metadata()) as imds:
        done = subprocess.run(
            ["bash", "-c", script],
            env=commands.env(**stores, IMDS=imds.url),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    return done, machine


def test_release_of_uncommitted_changes_is_refused(checkout: Path, commands: Commands) -> None:
    (checkout / "infra" / "terraform" / "main.tf").write_text("# changed\n")
    done = release(checkout, commands, "1.2.3")
    assert done.returncode == 1
    assert "not committed" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["../evil"], ["1.0", "--frobnicate"]])
def test_release_explains_wrong_arguments(
    arguments: list[str], checkout: Path, commands: Commands
) -> None:
    done = release(checkout, commands, *arguments)
    assert done.returncode == 2
    assert "see --help" in done.stderr
