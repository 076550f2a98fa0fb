"""The node of a local Ray, without the processes that a job does not use.

`ray.init` has no parameters for them. Each is a Python process that costs one to two seconds of
processor time, and Ray's start waits for the first one.
"""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def small_nodes() -> Iterator[None]:
    """Makes `ray.init` start a node without dashboard, autoscaler and log monitor in the block.

    `include_dashboard=False` leaves a process for usage statistics, which a local Ray does not
    collect. The autoscaler serves clusters that add machines. The log monitor sends the output of
    workers to drivers, which jobs do not show. Metrics come from the agent of the node, which runs.
    """
    from ray._private import node

    node_class = node.Node

    class SmallNode(node_class):  # type: ignore[misc, valid-type]
        """A head without these processes."""

        def start_api_server(self, *, include_dashboard: bool, raise_on_failure: bool) -> None:
            """Starts no dashboard."""

        def start_monitor(self) -> None:
            """Starts no autoscaler."""

        def start_log_monitor(self) -> None:
            """Starts no log monitor."""

    node.Node = SmallNode  # type: ignore[misc]
    try:
        yield
    finally:
        node.Node = node_class  # type: ignore[misc]
