"""Connects to Ray, quietly and safely: a running cluster, or a local one.

Metrics are in jobs/run/metrics.py, the rest of Ray in actors/pool/replica_pool.py.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.cli.signals import stop_at_once
from jobs.cluster.address import (
    AUTO,
    LOCAL,
    ClusterConfigError,
    announced_address,
    configured_address,
)
from jobs.cluster.authentication import Mode, choose_mode
from jobs.cluster.local_ray import local_ray
from jobs.cluster.probe import NoAnswerError
from jobs.cluster.settings import QUIET, cluster_variables, one_line, ray_settings
from pipeline.monitoring.run_log import RunLog


@contextlib.contextmanager
def ray_cluster(replicas: int, log: RunLog | None = None) -> Iterator[str]:
    """Connects to a running Ray cluster, or starts a local one.

    The running cluster is the one of RAY_ADDRESS, or the one that `ray start` announced on this
    machine. `RAY_ADDRESS=local` always starts one. `RAY_ADDRESS=auto` is the announced one only:
    Ray's own "auto" also searches the process table and would join a cluster that another program
    started for itself and takes down when it ends.

    A local cluster offers as many CPUs as replicas need, so that all of them start on a machine
    with fewer cores.

    Args:
        replicas: that run at once.
        log: receives what is unusual.

    Yields:
        A description of the cluster, for the log.

    Raises:
        ClusterConfigError: RAY_ADDRESS is not valid, or the cluster does not answer, or refuses the
            token.
        ClusterLostError: no local cluster came up.
        InterruptedRunError: SIGTERM or Ctrl-C before the cluster was there.
    """
    log = log or RunLog()
    with contextlib.ExitStack() as stack:
        with stop_at_once():
            cluster = _running_cluster(log)
            if cluster is None:
                cpus = max(replicas, os.cpu_count() or 1)
                stack.enter_context(local_ray(cpus, log))
                description = "local Ray"
            else:
                stack.enter_context(_connected(cluster))
                description = f"Ray cluster at {cluster.address}"
        yield description


@dataclass(frozen=True)
class _RunningCluster:
    """A cluster that answers."""

    address: str  # HOST:PORT
    mode: Mode


def _running_cluster(log: RunLog) -> _RunningCluster | None:
    """Returns the running cluster to use; None: start a local one.

    Raises:
        ClusterConfigError: RAY_ADDRESS is not valid, or names a cluster that does not answer, or
            the cluster refuses the token.
    """
    address = configured_address(os.environ)
    if address == LOCAL:
        return None
    if address is not None and address != AUTO:
        try:
            return _RunningCluster(address, choose_mode(address, os.environ))
        except NoAnswerError as error:
            raise ClusterConfigError(
                f"no Ray cluster answers at RAY_ADDRESS={address} ({error}); start it or unset it"
            ) from error

    announced = announced_address(os.environ, log)
    if announced is not None:
        try:
            return _RunningCluster(announced, choose_mode(announced, os.environ))
        except NoAnswerError as error:
            message = f"the Ray cluster at {announced} has ended ({error})"
            log.event("announced_cluster_ended", message)
    if address == AUTO:
        raise ClusterConfigError(
            "RAY_ADDRESS=auto, and no running Ray cluster was started on this machine by this user "
            "or root; start one with `ray start --head`, or set RAY_ADDRESS=HOST:PORT"
        )
    return None


@contextlib.contextmanager
def _connected(cluster: _RunningCluster) -> Iterator[None]:
    """Connects to a running cluster.

    Raises:
        ClusterConfigError: the cluster does not accept this driver.
    """
    with ray_settings(cluster_variables(cluster.mode)):
        import ray

        try:
            _connect(cluster.address)
            yield
        finally:
            ray.shutdown()


def _connect(address: str) -> None:
    import ray

    try:
        ray.init(address=address, **QUIET)
    # Ray raises errors of many classes: of the connection, the versions, the environment.
    except Exception as error:
        raise ClusterConfigError(
            f"the Ray cluster at {address} does not accept this driver ({one_line(error)}); "
            "compare the versions of Ray and Python, or set RAY_ADDRESS=local to use a Ray of this "
            "machine"
        ) from error
