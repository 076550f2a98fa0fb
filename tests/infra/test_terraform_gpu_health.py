"""node/gpu_health.py on the output of nvidia-smi: which machines may take work."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.cloud import Commands
from tests.infra.nvidia import Gpus

SCRIPT = Path(__file__).parents[2] / "infra" / "terraform" / "node" / "gpu_health.py"


def check(folder: Path, gpus: Gpus, kernel: str = "") -> "subprocess.CompletedProcess[str]":
    commands = Commands(folder)
    commands.fake("nvidia-smi", gpus.body())
    log = folder / "kernel.log"
    log.write_text(kernel)
    command = [sys.executable, str(SCRIPT), "--gpus", "8", "--kernel-log", str(log)]
    return subprocess.run(
        command, env=commands.env(), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("gpus", [Gpus(), Gpus(links=12, speed="25 GB/s", fabric="[N/A]")])
def test_healthy_machine_passes(tmp_path: Path, gpus: Gpus) -> None:
    harmless = "2026-11-27 kernel: NVRM: Xid (PCI:0000:53:00): 13, pid=1, a fault of a program\n"
    done = check(tmp_path, gpus, harmless)
    assert (done.returncode, done.stderr) == (0, "")
    assert "8 GPUs are healthy" in done.stdout


@pytest.mark.parametrize(
    ("gpus", "fault"),
    [
        (Gpus(number=7), "expected 8 GPUs, nvidia-smi lists 7"),
        (Gpus(driver="550.54.15"), "driver 550.54.15, expected 560 or newer"),
        (Gpus(ecc="2"), "GPU 0: 2 uncorrectable memory errors"),
        (Gpus(fabric="In Progress"), "NVSwitch fabric is In Progress"),
        (Gpus(pending="1"), "waits for a reset"),
        (Gpus(failure="Yes"), "could not be remapped"),
        (Gpus(slow_link="<inactive>"), "GPU 0: 1 of 18 NVLinks are down or below 25 GB/s"),
        (Gpus(slow_link="12.5 GB/s"), "GPU 0: 1 of 18 NVLinks are down or below 25 GB/s"),
        (Gpus(links=0), "GPU 0: 0 NVLinks, expected at least 12"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fault_is_named(tmp_path: Path, gpus: Gpus, fault: str) -> None:
    done = check(tmp_path, gpus)
    assert done.returncode == 1
    assert fault in done.stderr
    assert done.stdout == ""


def test_hardware_error_of_this_boot_is_named_once(tmp_path: Path) -> None:
    line = "2026-11-27 kernel: NVRM: Xid (PCI:0000:53:00): 79, GPU has fallen off the bus.\n"
    done = check(tmp_path, Gpus(), line * 3)
    assert done.returncode == 1
    assert done.stderr == "gpu_health: PCI:0000:53:00: Xid 79 since the machine started\n"


def test_machine_whose_driver_does_not_answer_is_refused(tmp_path: Path) -> None:
    commands = Commands(tmp_path)
    commands.fake("nvidia-smi", "sys.exit('NVIDIA-SMI has failed')")
    command = [sys.executable, str(SCRIPT), "--gpus", "8"]
    done = subprocess.run(
        command, env=commands.env(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("gpu_health: nvidia-smi: ")
