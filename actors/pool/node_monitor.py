"""Notices when the Ray node of this process ends: a connection to its raylet is closed then.

Ray's head notices after some 15 s that a raylet is gone. Moments later Ray looks for copies of the
objects that this process has put on the node, finds no object store, and ends the process with exit
code 1. Does not depend on Ray: the socket is an argument.
"""

import contextlib
import socket


class NodeMonitor:
    """Holds a connection that the raylet never uses."""

    def __init__(self, raylet_socket: str | None) -> None:
        """Connects to the raylet.

        Args:
            raylet_socket: path of its Unix socket; None where it has none: then `is_dead` is never
                true.
        """
        self._connection: socket.socket | None = None
        if raylet_socket is not None:
            self._connection = _connect(raylet_socket)
        self._is_dead = raylet_socket is not None and self._connection is None

    def is_dead(self) -> bool:
        """Returns whether the raylet has ended; does not wait."""
        if self._connection is not None and not self._is_dead:
            self._is_dead = _is_closed(self._connection)
        return self._is_dead

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()


def _connect(path: str) -> socket.socket | None:
    """Returns a connection that does not block; None where nobody listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    connection.setblocking(False)
    return connection


def _is_closed(connection: socket.socket) -> bool:
    """Returns whether the other side has closed a connection."""
    with contextlib.suppress(BlockingIOError):
        try:
            return not connection.recv(1)
        except ConnectionError:
            return True
    return False
