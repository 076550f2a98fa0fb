import os
import stat
import subprocess
from pathlib import Path

import pytest

from jobs.cluster.address import ClusterConfigError
from jobs.cluster.ray_folder import SOCKET_NAME_BYTES, SOCKET_PATH_BYTES, private_folder

SOCKET = "session_2026-11-26_19-14-30_939223_1234567/sockets/plasma_store.1"


def test_folder_is_private_and_removed(tmp_path: Path) -> None:
    with private_folder({"TMPDIR": str(tmp_path)}) as folder:
        (folder.path / "session").mkdir()
        for private in folder.folders:
            assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert folder.path.resolve().is_relative_to(tmp_path)

    assert list(tmp_path.iterdir()) == []
    assert not os.path.lexists(folder.path)
    assert not folder.folders[-1].exists()


@pytest.mark.parametrize("characters", [1, 80, 200])
def test_folder_is_short_enough_for_sockets(characters: int, tmp_path: Path) -> None:
    long_folder = tmp_path / ("x" * characters)

    with private_folder({"TMPDIR": str(long_folder)}) as folder:
        assert len(f"{folder.path}/{SOCKET}") <= SOCKET_PATH_BYTES
        assert folder.path.resolve().is_relative_to(long_folder)
        assert len(SOCKET) + 1 == SOCKET_NAME_BYTES


def test_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(ClusterConfigError, match="cannot use the temporary folder"),
        private_folder({"RAY_TMPDIR": str(tmp_path / "file")}),
    ):
        pass


def test_folder_ends_the_processes_that_write_to_it(tmp_path: Path) -> None:
    with private_folder({"TMPDIR": str(tmp_path)}) as folder:
        log = folder.path / "agent.out"
        with log.open("w") as output:
            agent = subprocess.Popen(["sleep", "600"], stdout=output)
        other = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)

    assert agent.wait(30) == -9
    assert other.poll() is None
    other.kill()
    other.wait()
