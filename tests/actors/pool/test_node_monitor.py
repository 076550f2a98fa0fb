import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.pool.node_monitor import NodeMonitor


@contextmanager
def raylet(path: Path) -> Iterator[socket.socket]:
    """Yields a socket that listens, as a raylet's does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        yield server


def test_node_is_dead_once_its_raylet_ends(tmp_path: Path) -> None:
    with raylet(tmp_path / "raylet") as server:
        monitor = NodeMonitor(str(tmp_path / "raylet"))
        connection, _ = server.accept()
        assert not monitor.is_dead()
        assert not monitor.is_dead()

        connection.close()

        assert monitor.is_dead()
        assert monitor.is_dead()
        monitor.close()


def test_node_is_dead_if_its_raylet_never_accepted(tmp_path: Path) -> None:
    with raylet(tmp_path / "raylet"):
        monitor = NodeMonitor(str(tmp_path / "raylet"))

    assert monitor.is_dead()
    monitor.close()


def test_node_is_dead_if_nobody_listens(tmp_path: Path) -> None:
    monitor = NodeMonitor(str(tmp_path / "raylet"))

    assert monitor.is_dead()
    monitor.close()


def test_node_without_a_socket_is_never_dead() -> None:
    monitor = NodeMonitor(None)

    assert not monitor.is_dead()
    monitor.close()
