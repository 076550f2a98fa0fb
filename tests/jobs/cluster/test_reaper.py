import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from jobs.cluster.reaper import ray_processes
from jobs.run.plan import ROOT

# An agent in a session of its own, as Ray's: nothing but the reaper ends it. Its output goes to a
# pipe, as Ray's agents redirect theirs; what is left is the inherited log of their server.
DRIVER = """
import os, signal, subprocess, sys
from jobs.cluster.ray_folder import private_folder

with private_folder({"TMPDIR": sys.argv[1]}) as folder:
    with (folder.path / "raylet.out").open("w") as log:
        inherited = {"pass_fds": [log.fileno()], "start_new_session": True}
        subprocess.Popen(["sleep", "600"], stdout=subprocess.PIPE, **inherited)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_reaper_cleans_up_after_a_killed_driver(tmp_path: Path) -> None:
    # The agent inherits the standard error of the driver, so this waits for both.
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )

    assert driver.returncode == -signal.SIGKILL, driver.stderr
    deadline_s = time.monotonic() + 30
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_ray_processes_write_to_files_below_the_folder(tmp_path: Path) -> None:
    driver = 7
    proc = tmp_path / "proc"
    files = {
        1: {1: "/dev/null", 2: "/ray/session/agent.err"},
        2: {1: "pipe:[1]", 2: "pipe:[2]", 5: "/ray/session/raylet.out"},
        3: {1: "/dev/null", 2: "/dev/null"},
        4: {1: "/rays/agent.out", 2: "/ray-2/agent.err"},
        driver: {9: "/ray/session/driver.log"},
        os.getpid(): {1: "/ray/out"},
    }
    for pid, targets in files.items():
        descriptors = proc / str(pid) / "fd"
        descriptors.mkdir(parents=True)
        for number, target in targets.items():
            (descriptors / str(number)).symlink_to(target)
    (proc / "5").mkdir()  # ended meanwhile
    (proc / "self").symlink_to(proc / str(os.getpid()))

    assert sorted(ray_processes(Path("/ray"), driver, proc)) == [1, 2]
    assert list(ray_processes(Path("/ray"), driver, tmp_path / "missing")) == []


def test_ray_processes_do_not_include_readers_of_logs(tmp_path: Path) -> None:
    log = tmp_path / "raylet.out"
    log.touch()
    command = [sys.executable, "-c", "input()"]

    with log.open() as file:
        inherited = {"stdin": subprocess.PIPE, "pass_fds": [file.fileno()]}
        reader = subprocess.Popen(command, **inherited)  # type: ignore[call-overload]
    try:
        assert list(ray_processes(tmp_path, os.getpid())) == []
    finally:
        reader.kill()
        reader.communicate()
