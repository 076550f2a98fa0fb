"""Starts a Ray of this driver's own, again if a start fails, and ends it with all its processes.

Ray gives a new node 30 s to come up. A machine that is busy with other work may need longer.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from actors.protocol.errors import ClusterLostError
from jobs.cluster.address import LOCAL
from jobs.cluster.local_node import small_nodes
from jobs.cluster.ray_folder import private_folder
from jobs.cluster.settings import QUIET, local_variables, one_line, ray_settings
from pipeline.monitoring.run_log import RunLog

STARTS = 3


@contextlib.contextmanager
def local_ray(cpus: int, log: RunLog) -> Iterator[None]:
    """Runs a local Ray within the block.

    It requires a random token, listens on 127.0.0.1 and keeps its files in a private folder. All of
    it ends with the block.

    Args:
        cpus: that the cluster offers, whatever the machine has.
        log: receives failed starts.

    Raises:
        ClusterLostError: Ray did not start, several times in a row.
        ClusterConfigError: there is no folder for its files.
    """
    with ray_settings(local_variables(os.environ)):
        import ray

        reason: str | None = None
        for start in range(1, STARTS + 1):
            with private_folder(os.environ) as folder:
                try:
                    reason = _start(cpus, folder.path)
                    if reason is None:
                        yield
                        return
                finally:
                    ray.shutdown()
            _log_failed_start(start, reason, log)

    raise ClusterLostError(
        f"no local Ray has come up in {STARTS} starts (the last: {reason}); end other work on this "
        "machine, or set RAY_ADDRESS to a running cluster; the same command goes on"
    )


def _start(cpus: int, folder: Path) -> str | None:
    """Starts Ray; returns why the start has failed, or None."""
    import ray

    try:
        with small_nodes():
            ray.init(
                address=LOCAL,
                num_cpus=cpus,
                include_dashboard=False,
                _temp_dir=str(folder),
                **QUIET,
            )
    # Ray raises a bare Exception when a node does not come up in time, and others besides.
    except Exception as error:  # noqa: BLE001
        return one_line(error)
    return None


def _log_failed_start(start: int, reason: str, log: RunLog) -> None:
    log.event(
        "ray_start_failed",
        f"start {start} of {STARTS} of a local Ray has failed ({reason})",
        level="warning",
        start=start,
        starts=STARTS,
    )
