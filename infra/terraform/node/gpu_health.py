"""Checks the GPUs of this node before Ray starts: number, driver, memory errors, Xid, NVLink.

    python3.12 gpu_health.py --gpus 8

Exit code 0 if a replica can use them, 1 with one line per fault. Reads nvidia-smi and the kernel
messages that grok-batch-kernel.service writes. Standard library only: it runs before packages are
installed.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

MIN_DRIVER = 560  # CUDA 12.6
MIN_LINKS = 12  # A100; H100 and H200 have 18
MIN_LINK_GB_S = 25.0  # A100; H100 and H200: 26.56
# Hardware errors of "XID Errors" (NVIDIA): memory that is not contained, NVLink, the bus, the GSP.
# Errors of a program (13, 31, 43, 45) and contained or repaired memory errors (63, 94) are absent.
FATAL_XIDS = frozenset({48, 62, 64, 74, 79, 92, 95, 119, 120, 140})
XID = re.compile(r"NVRM: Xid \(([^)]*)\): (\d+)")
LINK = re.compile(r"^\s*Link (\d+): (?:([\d.]+) GB/s|.*)$")
ABSENT = {"N/A", "[N/A]", "[Not Supported]"}


def query(option: str, *fields: str) -> list[list[str]]:
    """Returns the values of nvidia-smi, a row per GPU.

    Raises:
        CalledProcessError, OSError: nvidia-smi fails or is absent.
    """
    command = ["nvidia-smi", f"--query-{option}={','.join(fields)}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows = [line.split(",") for line in done.stdout.splitlines() if line.strip()]
    return [[value.strip() for value in row] for row in rows]


def faults(gpus: int, kernel_log: Path) -> Iterator[str]:
    """Yields what is wrong with the GPUs; nothing if all is well."""
    rows = query(
        "gpu", "index", "driver_version", "ecc.errors.uncorrected.volatile.total", "fabric.state"
    )
    if len(rows) != gpus:
        yield f"expected {gpus} GPUs, nvidia-smi lists {len(rows)}"
    for index, driver, errors, fabric in rows:
        if int(driver.split(".")[0]) < MIN_DRIVER:
            yield f"GPU {index}: driver {driver}, expected {MIN_DRIVER} or newer"
        if errors not in ABSENT | {"0"}:
            yield f"GPU {index}: {errors} uncorrectable memory errors"
        if fabric not in ABSENT | {"Completed"}:
            yield f"GPU {index}: NVSwitch fabric is {fabric}, expected Completed"

    remapped = ("gpu_bus_id", "remapped_rows.pending", "remapped_rows.failure")
    for bus_id, pending, failure in query("remapped-rows", *remapped):
        if pending not in ABSENT | {"0", "No"}:
            yield f"GPU {bus_id}: a remapped memory row waits for a reset of the GPU"
        if failure not in ABSENT | {"0", "No"}:
            yield f"GPU {bus_id}: a memory row could not be remapped"

    yield from link_faults()
    yield from xid_faults(kernel_log)


def link_faults() -> Iterator[str]:
    """Yields GPUs whose NVLinks are down, slow or too few."""
    command = ["nvidia-smi", "nvlink", "--status"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    for section in re.split(r"^(?=GPU \d+:)", done.stdout, flags=re.MULTILINE):
        if not section.startswith("GPU "):
            continue
        name = section.split(":")[0]
        speeds: list[float] = []
        for line in section.splitlines():
            link = LINK.match(line)
            if link is not None:
                speeds.append(float(link[2] or 0))
        slow = [speed for speed in speeds if speed < MIN_LINK_GB_S]
        if slow:
            yield f"{name}: {len(slow)} of {len(speeds)} NVLinks are down or below 25 GB/s"
        if len(speeds) < MIN_LINKS:
            yield f"{name}: {len(speeds)} NVLinks, expected at least {MIN_LINKS}"


def xid_faults(kernel_log: Path) -> Iterator[str]:
    """Yields hardware errors of GPUs since the machine started."""
    if not kernel_log.exists():
        return  # the service that writes it starts at the same time
    seen: set[tuple[str, str]] = set()
    for place, number in XID.findall(kernel_log.read_text(errors="replace")):
        if int(number) in FATAL_XIDS and (place, number) not in seen:
            seen.add((place, number))
            yield f"{place}: Xid {number} since the machine started"


def main(arguments: Sequence[str]) -> int:
    """Runs the command line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="gpu_health.py", description=__doc__)
    parser.add_argument("--gpus", required=True, type=int, help="number that the machine has")
    parser.add_argument(
        "--kernel-log", default="/var/log/grok-batch/kernel.log", type=Path, help="kernel messages"
    )
    options = parser.parse_args(arguments)
    try:
        found = list(faults(options.gpus, options.kernel_log))
    except (OSError, subprocess.SubprocessError) as error:
        found = [f"nvidia-smi: {error}"]
    for fault in found:
        sys.stderr.write(f"gpu_health: {fault}\n")
    if found:
        return 1
    sys.stdout.write(f"gpu_health: {options.gpus} GPUs are healthy\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
