"""A machine without systemd and root: a folder, in which user data and units run as a whole.

All absolute paths of the scripts lead into the folder. Units run as systemd would run them: with
their environment file, output appended to their log, and OnFailure after an exit code that is not
0. Commands of the system are fakes that record their arguments (tests.infra.cloud); S3 and SSM are
folders.
"""

import configparser
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from tests.infra.cloud import Commands
from tests.infra.nvidia import Gpus

ROOT = Path(__file__).parents[2]
TERRAFORM = ROOT / "infra" / "terraform"
# /tmp is Ray's, and of no interest here
ABSOLUTE = re.compile(r"(?<![\w.}$])/(etc|opt|var|run|mnt)(?=/)")
RUN_REST = "os.execvp(args[0], args)"
AWS = """
import time
store = pathlib.Path({store!r})
fail = {fail!r}
if fail and fail in " ".join(args):
    sys.exit("An error occurred (AccessDenied)")
def place(word):
    return store / word.removeprefix("s3://") if word.startswith("s3://") else pathlib.Path(word)
words = [word for word in args if not word.startswith("--")]
if args[:2] == ["s3", "cp"] and words[2] == "-":
    place(words[3]).parent.mkdir(parents=True, exist_ok=True)
    place(words[3]).write_text(sys.stdin.read())
elif args[:2] == ["s3", "cp"]:
    shutil.copy(place(words[2]), place(words[3]))
elif args[:2] == ["s3", "sync"]:
    shutil.copytree(place(words[2]), place(words[3]), dirs_exist_ok=True)
elif args[:2] == ["ssm", "get-parameter"]:
    path = store / args[args.index("--name") + 1].strip("/").replace("/", ".")
    print(path.read_text() if path.exists() else sys.exit("ParameterNotFound"))
elif args[:2] == ["ssm", "put-parameter"]:
    request = json.load(open(args[args.index("--cli-input-json") + 1].removeprefix("file://")))
    (store / request["Name"].strip("/").replace("/", ".")).write_text(request["Value"])
"""
INSTALL = """
words = [word for word in args]
for flag in ("-o", "-g"):
    while flag in words:
        del words[words.index(flag) : words.index(flag) + 2]
os.execv("/usr/bin/install", ["install", *words])
"""
# `make setup` with the wheels of the release: an environment whose Python is this one.
MAKE = """
folder = pathlib.Path(args[args.index("-C") + 1]) / ".venv" / "bin"
folder.mkdir(parents=True, exist_ok=True)
python = folder / "python"
python.write_text("#!/bin/sh\\nexec python3.12 \\"$@\\"\\n")
python.chmod(0o755)
"""
# smoke.py, verify_checkpoint.py: recorded; gpu_health.py runs
PYTHON = """
if args[0].endswith("gpu_health.py"):
    os.execv(sys.executable, [sys.executable, *args])
"""
SYSTEM = ("dnf", "useradd", "chown", "shutdown", "lsblk", "mdadm", "mkfs.xfs", "mount", "start-ray")


class Machine:
    """One machine of a role. `fail(NAME)` lets a command fail from then on."""

    def __init__(
        self,
        folder: Path,
        imds: str,
        role: str = "worker",
        scaling: str = "ray",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Makes the machine; `settings` are those of node.env instead of the test's own."""
        self.root = folder / "machine"
        self.store = folder / "store"
        self.commands = Commands(folder)
        self.enabled: list[str] = []
        for name in ("etc/systemd/system", "etc/logrotate.d", "var/tmp", "var/log", "run", "mnt"):
            (self.root / name).mkdir(parents=True)
        (self.root / "var/log/cloud-init-output.log").write_text("cloud-init\n")
        self.store.mkdir()
        self.environment = self._node_environment() | dict(settings or {})
        self._parameter("HEAD_IP_PARAMETER").write_text("10.42.0.10")
        if role == "worker":
            self._parameter("TOKEN_PARAMETER").write_text("token of the head")
        weights = self._object("WEIGHTS_URL")
        weights.mkdir(parents=True)
        (weights / "tensor00000_000").write_text("weights")
        self._make_commands()
        digest = self._make_release()
        self.environment |= {
            "ROLE": role,
            "SCALING": scaling,
            "RELEASE_SHA256": digest,
            "IMDS": imds,
        }

    def _parameter(self, name: str) -> Path:
        return self.store / self.environment[name].strip("/").replace("/", ".")

    def _object(self, name: str) -> Path:
        return self.store / self.environment[name].removeprefix("s3://")

    def _make_commands(self) -> None:
        for name in SYSTEM:
            self.commands.fake(name)
        self.commands.fake("id", "sys.exit(1)")
        self.commands.fake("mountpoint", "sys.exit(1)")
        self.commands.fake("systemctl", "sys.exit(args[0] == 'cat')")
        self.commands.fake("lsblk", "print('/dev/nvme1n1 Amazon EC2 NVMe Instance Storage')")
        self.commands.fake("mdadm", "sys.exit(args[0] == '--assemble')")
        self.commands.fake("install", INSTALL)
        self.commands.fake("make", MAKE)
        self.commands.fake("python3.12", PYTHON)
        self.commands.fake("runuser", "args = args[3:]\n" + RUN_REST)
        self.commands.fake("nvidia-smi", Gpus().body())
        self.fake_aws()
        agent = self.root / "opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl"
        agent.parent.mkdir(parents=True)
        self.commands.fake(agent.name)
        agent.symlink_to(self.commands.folder / agent.name)

    def fake_aws(self, fail: str = "") -> None:
        """Commands of AWS that contain `fail` fail."""
        self.commands.fake("aws", AWS.format(store=str(self.store), fail=fail))

    def fail(self, name: str) -> None:
        """Lets a command of the system fail."""
        self.commands.fake(name, f"sys.exit('{name}: failed')")

    def _make_release(self) -> str:
        """Packs the node's scripts as release.sh does; returns the archive's digest."""
        release = self.root.parent / "release"
        node = release / "infra" / "terraform" / "node"
        shutil.copytree(TERRAFORM / "node", node, ignore=shutil.ignore_patterns("__pycache__"))
        for path in node.rglob("*"):
            if path.suffix in {".sh", ".service", ".conf"}:
                path.write_text(self._into_root(path.read_text()))
        (release / "jobs").mkdir()
        archive = self._object("RELEASE_URL")
        archive.parent.mkdir(parents=True)
        with tarfile.open(archive, "w") as file:
            file.add(release, "release")
        return sha256(archive.read_bytes()).hexdigest()

    def _into_root(self, text: str) -> str:
        return ABSOLUTE.sub(rf"{self.root}/\1", text)

    def _node_environment(self) -> dict[str, str]:
        """Returns the environment of main.tf: literal values as they are, others as a test has."""
        values = {
            "CLUSTER": "test",
            "RELEASE_VERSION": "1.2.3",
            "RELEASE_URL": "s3://runs/cluster/releases/release.tar",
            "WEIGHTS_URL": "s3://weights/grok-1",
            "JAX_CACHE_URL": "s3://runs/cluster/jax-cache",
            "AUTOSCALER_URL": "s3://runs/cluster/autoscaler.yaml",
            "BOOTS_URL": "s3://runs/cluster/boots/1",
            "TOKEN_PARAMETER": "/test/ray-auth-token",
            "HEAD_IP_PARAMETER": "/test/head-ip",
            "KMS_KEY_ARN": "arn:aws:kms:us-east-1:123456789012:key/1",
            "METRIC_NAMESPACE": "GrokBatch",
            "ASG_NAME": "test-workers",
            "LIFECYCLE_HOOK": "test-drain",
            "LIFECYCLE_HOOK_S": "900",
            "IDLE_MINUTES": "10",
            "BOOT_MINUTES": "20",
            "BREAKER_BOOTS": "3",
        }
        text = (TERRAFORM / "main.tf").read_text()
        _, _, block = text.partition("  environment = {\n")
        for line in block.partition("\n  }\n")[0].splitlines():
            name, _, value = (part.strip() for part in line.partition("="))
            values.setdefault(name, self._into_root(value.strip('"')))
        pauses = (
            "LEAVE_PAUSE_S",
            "HOOK_PAUSE_S",
            "TOKEN_PAUSE_S",
            "WEIGHTS_PAUSE_S",
            "DNF_PAUSE_S",
        )
        values |= dict.fromkeys(pauses, "0")
        values |= {"HOOK_ATTEMPTS": "2", "TOKEN_ATTEMPTS": "2", "RAY": "start-ray"}
        values["BOOT_LOG"] = str(self.root / "var/log/grok-batch/boot.log")
        return values

    def first_boot(self) -> int:
        """Runs the user data, then the units that it enables; returns the user data's exit code."""
        template = (TERRAFORM / "user_data.sh.tftpl").read_text()
        settings = "".join(f'{name}="{value}"\n' for name, value in self.environment.items())
        loop = re.compile(r"%\{ for .*?%\{ endfor ~\}\n", re.DOTALL)
        script = loop.sub(lambda _: "SETTINGS HERE\n", self._into_root(template))
        script = script.replace("SETTINGS HERE\n", settings)
        script = script.replace("${environment.ROLE}", self.environment["ROLE"])
        script = script.replace("$${", "${")
        done = subprocess.run(
            ["bash", "-c", script],
            env=self.commands.env(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.output = done.stdout + done.stderr
        self._run_enabled()
        return done.returncode

    def reboot(self) -> None:
        """Forgets the commands so far, and runs the units that were enabled."""
        enabled = self.enabled
        self.commands.log.unlink()
        self.enabled = []
        self.run_unit(next(unit for unit in enabled if "boot" in unit))
        self._run_enabled()

    def _run_enabled(self) -> None:
        """Runs units that scripts have enabled, in the order of systemd: boot before Ray."""
        for call in self.commands.called("systemctl", "enable"):
            for unit in call[1:]:
                if unit.endswith(".service") and unit not in self.enabled:
                    self.enabled.append(unit)
                    if unit in {"grok-batch-boot.service", "grok-batch-ray.service"}:
                        self.run_unit(unit)
        if any(self._started(unit) for unit in self._called_units() - set(self.enabled)):
            self._run_enabled()

    def _called_units(self) -> set[str]:
        calls = self.commands.called("systemctl", "enable")
        return {word for call in calls for word in call if word.endswith(".service")}

    def _started(self, unit: str) -> bool:
        return unit not in self.enabled

    def run_unit(self, name: str) -> int:
        """Runs a unit's command; if it fails, the unit of its OnFailure."""
        template = re.sub(r"@[^.]*", "@", name)
        instance = name.partition("@")[2].removesuffix(".service")
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read(self.root / "etc/systemd/system" / template)
        service = unit["Service"]
        command = service["ExecStart"].replace("%i", instance)
        kind, _, log = service["StandardOutput"].partition(":")
        assert kind == "append"
        settings = Path(service["EnvironmentFile"]).read_text()
        environment = dict(re.findall(r'^(\w+)="(.*)"$', settings, re.MULTILINE))
        with Path(log).open("a") as output:
            done = subprocess.run(
                ["bash", "-c", f"exec {command}"],
                env=self.commands.env(**environment),
                stdout=output,
                stderr=output,
                timeout=300,
                check=False,
            )
        if done.returncode and "OnFailure" in unit["Unit"]:
            self.run_unit(unit["Unit"]["OnFailure"])
        return done.returncode

    def log(self, name: str) -> str:
        """Returns the log of a service."""
        path = self.root / "var/log/grok-batch" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def reasons(self) -> list[str]:
        """Returns the texts of failed boots."""
        return [path.read_text() for path in sorted(self._object("BOOTS_URL").glob("*-failed"))]

    def order(self, *words: str) -> list[int]:
        """Returns the positions of the first commands that contain these words, in order."""
        lines = [" ".join(call) for call in self.commands.calls()]
        positions: list[int] = []
        for word in words:
            matching = [number for number, line in enumerate(lines) if word in line]
            assert matching, f"no command contains {word!r}:\n" + "\n".join(lines)
            positions.append(matching[0])
        return positions
