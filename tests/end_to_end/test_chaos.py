"""kill -9 of the driver at random moments, over real Ray actors: the output never changes.

The driver is tests/end_to_end/chaos_driver.py: all of the host side and the real pool; only what
runs inside the actors is a quick stub.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes import FakeReplicas
from tests.host_side import BAD_EVERY, drive, rows_of, write_input

ROOT = Path(__file__).parents[2]
# so many rows take seconds: a kill within a moment of a commit leaves most of them
ROWS, KILLS, BUDGET_S = 480, 3, 55.0

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(170)]


def start(source: Path, output: Path) -> "subprocess.Popen[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.end_to_end.chaos_driver", str(source), str(output)],
        cwd=ROOT,
        env=kept | {"RAY_ADDRESS": "local", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill(driver: "subprocess.Popen[str]") -> None:
    """kill -9 of the driver alone.

    Then of what its Ray left in the session, so that the next one starts on a free machine.
    """
    driver.kill()
    driver.communicate()
    session = driver.pid  # it leads the session that its Ray processes belong to
    try:
        os.killpg(session, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_killed_driver_does_not_change_the_output(tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.parquet", ROWS)
    undisturbed = tmp_path / "undisturbed"
    list(drive(source, str(undisturbed), FakeReplicas(1)))
    output, rng, began = tmp_path / "out", random.Random(20261120), time.monotonic()
    kills = kept = 0
    while kills < KILLS and time.monotonic() - began < BUDGET_S:
        before = len(list((output / "data").glob("part-*")))
        driver = start(source, output)
        while driver.poll() is None and len(list((output / "data").glob("part-*"))) <= before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.12))  # anywhere between this commit and a few later ones
        # this process was kept from running for so long that there was nothing left to kill
        ended = driver.poll() is not None
        kill(driver)
        kept = len(list((output / "data").glob("part-*")))
        if ended:
            assert driver.returncode == 0
            break
        kills += 1
    assert kills >= 1
    assert kept > 0
    last = start(source, output)
    out, err = last.communicate(timeout=120)
    assert last.returncode == 0, err
    assert int(out.split()[-1]) == -(-ROWS // 6) - kept, (
        "the last driver ran what was missing, and nothing else"
    )
    assert rows_of(str(output)) == rows_of(str(undisturbed))
    assert len(rows_of(str(output))) == sum(2 if row % BAD_EVERY else 1 for row in range(ROWS))
    assert [path.name for path in output.rglob(".*")] == [], (
        "what killed drivers left aside is gone"
    )
    assert (output / "_SUCCESS").exists()
