import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from jobs.cluster.reaper import ray_processes
from jobs.run.plan import ROOT

# An agent in a session of its own, as Ray's: nothing but the reaper ends it.
DRIVER = """
import os, signal, subprocess, sys
from jobs.cluster.ray_folder import private_folder

with private_folder({"TMPDIR": sys.argv[1]}) as folder:
    with (folder.path / "agent.out").open("w") as output:
        subprocess.Popen(["sleep", "600"], stdout=output, start_new_session=True)
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


def test_ray_processes_are_those_whose_output_is_below_the_folder(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    outputs = {
        1: ("/dev/null", "/ray/session/agent.err"),
        2: ("/ray/session/agent.out", "/dev/null"),
        3: ("/dev/null", "/dev/null"),
        4: ("/rays/agent.out", "/ray-2/agent.err"),
        os.getpid(): ("/ray/out", "/ray/err"),
    }
    for pid, (output, errors) in outputs.items():
        descriptors = proc / str(pid) / "fd"
        descriptors.mkdir(parents=True)
        (descriptors / "1").symlink_to(output)
        (descriptors / "2").symlink_to(errors)
    (proc / "5").mkdir()  # ended meanwhile
    (proc / "self").symlink_to(proc / str(os.getpid()))

    assert sorted(ray_processes(Path("/ray"), proc)) == [1, 2]
    assert list(ray_processes(Path("/ray"), tmp_path / "missing")) == []
