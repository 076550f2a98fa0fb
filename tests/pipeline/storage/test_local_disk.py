"""Local storage: temporary files of killed drivers are removed, those of live drivers are kept."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import DatasetError
from pipeline.storage import local_disk

DISK = local_disk.LocalDisk()
ROOT = Path(__file__).parents[3]
WRITER = """
import sys, time
from pathlib import Path
from pipeline.storage import local_disk
with local_disk._temporary_file(Path(sys.argv[1]), b"data"):
    print("aside", flush=True)
    time.sleep(60)
"""


def writer(path: Path) -> subprocess.Popen[str]:
    """Starts a process that has written aside and not yet published."""
    started = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "aside\n"
    return started


def test_temporary_files_of_dead_processes_are_removed(tmp_path: Path) -> None:
    with writer(tmp_path / "part-00000.parquet") as process:
        [aside] = tmp_path.glob(".*.aside")
        old = time.time() - 10 * local_disk.ABANDONED_S
        os.utime(aside, (old, old))  # slow, but alive
        assert DISK.remove_abandoned(str(tmp_path)) == 0
        assert aside.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert aside.exists()
        assert DISK.remove_abandoned(str(tmp_path)) == 1
        assert list(tmp_path.iterdir()) == []


def test_old_temporary_files_of_other_machines_are_removed(tmp_path: Path) -> None:
    aside = tmp_path / local_disk.TEMPORARY_NAME.format(
        name="part-00000.parquet", kernel="another", random="1234"
    )
    aside.write_bytes(b"data")
    (tmp_path / "part-00001.parquet").write_bytes(b"committed")
    (tmp_path / ".somebody-elses").write_bytes(b"")
    assert DISK.remove_abandoned(str(tmp_path)) == 0
    old = time.time() - 2 * local_disk.ABANDONED_S
    os.utime(aside, (old, old))
    assert DISK.remove_abandoned(str(tmp_path)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".somebody-elses",
        "part-00001.parquet",
    ]


def test_temporary_file_removed_before_its_lock_is_recreated(tmp_path: Path) -> None:
    """Between creation and lock, another driver may take it for a dead one's."""
    original, removed = os.open, []

    def removing(path: object, flags: int, mode: int = 0o777) -> int:
        descriptor = original(path, flags, mode)  # type: ignore[arg-type]
        if flags & os.O_CREAT and not removed:
            removed.append(Path(str(path)))
            removed[0].unlink()
        return descriptor

    local_disk.os.open = removing  # type: ignore[attr-defined]
    try:
        assert DISK.put_if_absent(str(tmp_path / "part"), b"data")
    finally:
        local_disk.os.open = original  # type: ignore[attr-defined]
    assert len(removed) == 1
    assert (tmp_path / "part").read_bytes() == b"data"
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_missing_folder_has_no_temporary_files(tmp_path: Path) -> None:
    assert DISK.remove_abandoned(str(tmp_path / "nothing")) == 0


def test_file_is_synced_before_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def record_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("sync folder" if is_folder else "sync file")
        fsync(descriptor)

    def record_link(source: Path, target: Path) -> None:
        calls.append("link")
        link(source, target)

    def record_replace(source: Path, target: Path) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "link", record_link)
    monkeypatch.setattr(os, "replace", record_replace)
    part = str(tmp_path / "part")
    assert DISK.put_if_absent(part, b"one")
    assert calls == ["sync file", "link", "sync folder"]
    calls.clear()
    assert DISK.replace_if(part, b"two", str(os.stat(part).st_mtime_ns))
    assert calls == ["sync file", "replace", "sync folder"]


def test_version_changes_within_one_tick_of_the_clock(tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(b"old")
    future_ns = time.time_ns() + 10**12
    os.utime(part, ns=(future_ns, future_ns))  # a clock that stands still, or went back
    assert DISK.replace_if(str(part), b"new", str(future_ns))
    stored = DISK.stat(str(part))
    assert stored is not None
    assert int(stored.version) > future_ns
    assert not DISK.replace_if(str(part), b"late", str(future_ns))


def test_replace_waits_for_the_lock_of_the_folder(tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(b"old")
    version = str(part.stat().st_mtime_ns)
    with ThreadPoolExecutor(1) as pool:
        with local_disk._locked_folder(tmp_path):
            waiting = pool.submit(DISK.replace_if, str(part), b"new", version)
            time.sleep(0.2)
            assert not waiting.done()
            assert part.read_bytes() == b"old"
        assert waiting.result()
    assert part.read_bytes() == b"new"


def test_stat_of_a_missing_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for name in ("", "nothing", "file/below"):
        assert DISK.stat(str(tmp_path / name)) is None


@pytest.fixture(params=[errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def disk_without_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("disk_without_links")
def test_disk_without_hard_links_creates_files_once(tmp_path: Path) -> None:
    part = tmp_path / "data" / "part-00000.parquet"
    assert DISK.put_if_absent(str(part), b"first")
    assert not DISK.put_if_absent(str(part), b"second")
    assert part.read_bytes() == b"first"
    assert os.listdir(part.parent) == [part.name]


@pytest.mark.usefixtures("disk_without_links")
def test_check_of_a_disk_without_hard_links_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    DISK.check_conditional_writes(str(tmp_path / "run.json"), replaces=False)
    assert caplog.text.count(f"the disk of {tmp_path} has no hard links") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("disk_without_links")
def test_disk_without_hard_links_lets_one_of_many_writers_win(tmp_path: Path) -> None:
    part = tmp_path / "part-00000.parquet"
    start = threading.Barrier(8, timeout=60)

    def create(writer_number: int) -> bool:
        start.wait()
        return DISK.put_if_absent(str(part), str(writer_number).encode())

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(create, range(8)))
    assert created.count(True) == 1
    assert part.read_bytes() == str(created.index(True)).encode()
    assert os.listdir(tmp_path) == [part.name]


@pytest.mark.usefixtures("disk_without_links")
def test_disk_without_links_and_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    message = r"has no locks \(No locks available\).*object storage"
    with pytest.raises(DatasetError, match=message):
        DISK.check_conditional_writes(str(tmp_path / "run.json"), replaces=False)
    with pytest.raises(DatasetError, match=message):
        DISK.put_if_absent(str(tmp_path / "part"), b"data")


def test_disk_that_syncs_no_folders_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def fsync_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_files)
    assert DISK.put_if_absent(str(tmp_path / "part"), b"data")
    assert (tmp_path / "part").read_bytes() == b"data"


def test_check_of_a_disk_that_cannot_be_written_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "run.json")
    DISK.check_conditional_writes(path, replaces=True)
    assert list(tmp_path.iterdir()) == []

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Read-only file system"):
        DISK.check_conditional_writes(path, replaces=False)
    assert list(tmp_path.iterdir()) == []
