"""infra/image: the Dockerfile copies files that exist, and the job runs with those alone."""

import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.infra.tools import program
from tests.jobs.runs import ROOT, environment

DOCKERFILE = ROOT / "infra" / "image" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Returns the Dockerfile's instructions: the word and the rest, in one line each."""
    text = re.sub(
        r"\\\n\s*",
        "",
        "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")),
    )
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines() if line]


def copies() -> list[tuple[list[str], str]]:
    """Returns what is copied out of the build context, and where to."""
    words = [
        rest.split()
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
    ]
    return [(each[:-1], each[-1]) for each in words]


def context() -> list[str]:
    """Returns the files that .dockerignore lets through: the last pattern that fits decides."""
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    patterns = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    def through(path: str) -> bool:
        kept = True
        for pattern in patterns:
            bare = pattern.removeprefix("!")
            fits = bare == "*" or path == bare.strip("/") or path.startswith(bare.strip("/") + "/")
            fits = fits or (
                bare.startswith("**/") and bare.removeprefix("**/").replace("*", "") in path
            )
            kept = pattern.startswith("!") if fits else kept
        return kept

    return [
        path for path in tracked.stdout.splitlines() if through(path) and (ROOT / path).exists()
    ]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the COPY instructions put into the image, and this checkout's packages."""
    if not (ROOT / ".git").exists():
        pytest.skip(
            "this is no git checkout: what would go into an image cannot be told from what lies "
            "about"
        )
    folder, files = tmp_path_factory.mktemp("image"), context()
    for sources, target in copies():
        for source in sources:
            found = [path for path in files if path == source or path.startswith(f"{source}/")]
            assert found, f"COPY {source}: .dockerignore lets nothing of it through"
            for path in found:
                into = folder / path if target in {"./", source} else folder / target
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / path, into)
    return folder


def test_build_context_is_small_and_excludes_tests() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    files = context()
    tops = {path.split("/")[0] for path in files}
    assert tops == {
        "LICENSE",
        "Makefile",
        "README.md",
        "actors",
        "grok_batch",
        "infra",
        "jobs",
        "pipeline",
        "pyproject.toml",
        "requirements.lock",
        "requirements-cuda12.lock",
    }
    assert {path for path in files if path.startswith("infra/")} == {
        "infra/image/healthcheck.py",
        "infra/image/follow_logs.py",
    }
    assert sum((ROOT / path).stat().st_size for path in files) < 20e6


def test_image_runs_unprivileged_and_pins_its_packages() -> None:
    found = instructions()
    last = dict(found)
    assert last["USER"] == "10001:10001"
    assert last["CMD"] == '["python", "jobs/smoke.py"]'
    assert json.loads(last["HEALTHCHECK"].partition("CMD ")[2]) == [
        "python",
        "infra/image/healthcheck.py",
    ]
    assert not {"ADD", "MAINTAINER"} & {word for word, _ in found}
    assert all("${BASE_IMAGE}" in rest for word, rest in found if word == "FROM")
    assert re.search(
        r"^nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu\d+\.\d+@sha256:[0-9a-f]{64}$",
        next(rest for _, rest in found).partition("=")[2],
    )
    assert not re.search(
        r"(?i)secret|password|token=(?!token)|aws_",
        DOCKERFILE.read_text().replace("RAY_AUTH_MODE=token", ""),
    )
    assert "RAY_AUTH_MODE=token" in last["ENV"]
    assert "RAY_JOB_STOP_WAIT_TIME_S=120" in last["ENV"]
    assert last["ENV"].startswith("PATH=/opt/grok-batch/.venv/bin:")


def test_image_installs_the_lock_file_with_hashes(tmp_path: Path) -> None:
    """`make setup` needs no more than the layer has: the Makefile and the lock files."""
    [sources] = [sources for sources, _ in copies() if "Makefile" in sources]
    for source in sources:
        shutil.copy(ROOT / source, tmp_path)
    assert any(
        'make INSTALLER=pip LOCK="${LOCK}" setup' in rest
        for word, rest in instructions()
        if word == "RUN"
    )
    plan = ["make", "-n", "INSTALLER=pip", "LOCK=requirements-cuda12.lock", "setup"]
    done = subprocess.run(
        plan, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--require-hashes -r requirements-cuda12.lock" in done.stdout


def test_dockerfile_passes_hadolint() -> None:
    hadolint = program("hadolint", "make infra-tools")
    done = subprocess.run(
        [hadolint, str(DOCKERFILE)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    mistaken = DOCKERFILE.read_text().replace("--no-install-recommends ", "")
    done = subprocess.run(
        [hadolint, "-"], input=mistaken, capture_output=True, text=True, timeout=60, check=False
    )
    assert "DL3015" in done.stdout


@pytest.mark.slow
def test_copied_files_suffice_to_run_a_model(image: Path) -> None:
    assert not (image / "tests").exists()
    env = environment(PYTHONPATH=str(image), PYTHONDONTWRITEBYTECODE="1", JAX_PLATFORMS="cpu")
    command = [
        sys.executable,
        "-P",
        "-c",
        _WITHOUT_CHECKOUT.format(root=str(ROOT)),
        "--cpu-devices",
        "8",
    ]
    done = subprocess.run(
        command, cwd=image, env=env, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'2 + 3 =' -> ' 5' on a mesh 1x8 of cpu" in done.stdout
    assert re.findall(r"^(\w+) +ok", done.stdout, re.MULTILINE) == [
        "versions",
        "machine",
        "ray",
        "stores",
        "programs",
        "devices",
        "mesh",
        "answer",
    ]


_WITHOUT_CHECKOUT = """
import runpy, sys
sys.path[:] = [each for each in sys.path if each.rstrip("/") != {root!r}]
sys.argv[0] = "jobs/smoke.py"
runpy.run_path("jobs/smoke.py", run_name="__main__")
"""


def test_smoke_with_too_few_gpus_explains_the_failure() -> None:
    env = environment(JAX_PLATFORMS="cpu")
    done = subprocess.run(
        [sys.executable, "jobs/smoke.py", "--gpus", "8"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert (
        "devices      FAILED: SmokeError: expected 8 GPUs, JAX sees 0; look at nvidia-smi"
        in done.stderr
    )


# -- healthcheck -----------------------------------------------------------------------


def healthcheck() -> Any:
    return load("healthcheck")


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "infra" / "image" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("answer", "well"), [(b"success", True), (b"failed", False), (None, False)]
)
def test_healthcheck_reports_the_state_of_the_agent(answer: bytes | None, well: bool) -> None:
    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if answer else 503)
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Agent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    assert healthcheck().healthy(url) is well
    server.shutdown()
    thread.join()
    server.server_close()
    assert healthcheck().healthy(url) is False


def test_healthcheck_detects_the_raylet(tmp_path: Path) -> None:
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "comm").write_text("python\n")
    (tmp_path / "13").mkdir()
    assert not healthcheck().has_node(tmp_path)
    (tmp_path / "13" / "comm").write_text("raylet\n")
    assert healthcheck().has_node(tmp_path)


# -- logs ------------------------------------------------------------------------------


def test_follower_prints_lines_of_files_that_appear_and_rotate(tmp_path: Path) -> None:
    follow_logs = load("follow_logs")
    files = follow_logs.FollowedFiles(tmp_path)
    replica = tmp_path / "worker-01-7.err"
    replica.write_text("Traceback\nunfinished")
    target = io.StringIO()
    files.copy_new_lines(target)
    assert target.getvalue() == "worker-01-7.err: Traceback\n"

    replica.write_text("Traceback\nunfinished line\n")
    (tmp_path / "raylet.out").write_text("started\n")
    (tmp_path / "dashboard.log").write_text("not followed\n")
    target = io.StringIO()
    files.copy_new_lines(target)
    assert target.getvalue() == "raylet.out: started\nworker-01-7.err: unfinished line\n"

    replica.write_text("anew")
    target = io.StringIO()
    files.copy_new_lines(target, unfinished=True)
    assert target.getvalue() == "worker-01-7.err: anew\n"


def test_follower_prints_last_lines_when_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job-driver-1.log").write_text("row 1\nkilled")
    stop = threading.Event()
    stop.set()
    assert load("follow_logs").main(tmp_path, stop) == 0
    assert capsys.readouterr().out == "job-driver-1.log: row 1\njob-driver-1.log: killed\n"
