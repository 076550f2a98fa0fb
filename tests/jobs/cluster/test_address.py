import os
from pathlib import Path

import pytest

from jobs.cluster.address import (
    ClusterConfigError,
    announced_address,
    configured_address,
    temporary_folders,
)
from pipeline.monitoring.run_log import RunLog

ADDRESS = "10.0.0.1:6379"


def announce(folder: Path, content: str = ADDRESS) -> Path:
    """Writes a note as `ray start` does: in a folder that everybody may write to."""
    (folder / "ray").mkdir()
    (folder / "ray").chmod(0o777)
    note = folder / "ray" / "ray_current_cluster"
    note.write_text(content)
    note.chmod(0o644)
    return note


def read(folder: Path) -> str | None:
    return announced_address({"RAY_TMPDIR": str(folder)}, RunLog())


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "[::1]:6379", "head:1", "local", "auto"])
def test_configured_address_is_host_and_port_or_a_word(address: str) -> None:
    assert configured_address({"RAY_ADDRESS": f" {address} "}) == address


def test_configured_address_may_be_missing_or_empty() -> None:
    assert configured_address({}) is None
    assert configured_address({"RAY_ADDRESS": ""}) is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:8265", "is the URL of a dashboard"),
        ("https://head", "is the URL of a dashboard"),
        ("ray://head:10001", "a driver does not run through Ray Client"),
        ("head", "is not an address; expected HOST:PORT"),
        ("head:port", "is not an address"),
        ("a b:1", "is not an address"),
    ],
)
def test_configured_address_that_is_not_valid_is_an_error(address: str, reason: str) -> None:
    with pytest.raises(ClusterConfigError, match=reason):
        configured_address({"RAY_ADDRESS": address})


def test_announced_address_of_this_user_is_used(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    announce(tmp_path, f"{ADDRESS}\n")
    assert read(tmp_path) == ADDRESS


@pytest.mark.parametrize("mode", [0o666, 0o664])
def test_announcement_that_others_may_write_is_ignored(
    mode: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(tmp_path).chmod(mode)

    assert read(tmp_path) is None
    assert f"other users may write to it (mode 0{mode:o})" in capsys.readouterr().err


def test_announcement_of_another_user_is_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(tmp_path)
    environment = {"RAY_TMPDIR": str(tmp_path)}

    assert announced_address(environment, RunLog(), frozenset({12345})) is None
    assert f"its folder belongs to another user (uid {os.geteuid()}); set RAY_ADDRESS" in (
        capsys.readouterr().err
    )


def test_announcement_that_is_a_link_is_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = announce(tmp_path)
    note.rename(tmp_path / "note")
    note.symlink_to(tmp_path / "note")

    assert read(tmp_path) is None
    assert "is not used" in capsys.readouterr().err


def test_announcement_that_is_a_fifo_is_ignored(tmp_path: Path) -> None:
    note = announce(tmp_path)
    note.unlink()
    os.mkfifo(note)

    assert read(tmp_path) is None


@pytest.mark.parametrize(
    "content", ["", "two words", "http://head:8265", "\x1b31m:6379", "é" * 400]
)
def test_announcement_without_an_address_is_ignored(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(tmp_path, content)

    assert read(tmp_path) is None
    assert "does not hold an address" in capsys.readouterr().err


def test_announcement_is_searched_where_ray_start_writes() -> None:
    assert temporary_folders({"RAY_TMPDIR": "/a", "TMPDIR": "/b"}) == [Path("/a")]
    assert temporary_folders({"TMPDIR": "/b"}) == [Path("/b"), Path("/tmp")]
    assert temporary_folders({"TMPDIR": "/tmp"}) == [Path("/tmp")]
    assert temporary_folders({}) == [Path("/tmp")]
