"""Connects to Ray, quietly and safely: a running cluster, or a local one.

Metrics are in jobs/run/metrics.py, the rest of Ray in actors/pool/replica_pool.py.
"""

import contextlib
import os
from collections.abc import Iterator

from jobs.cli.signals import stop_at_once
from jobs.cluster.address import (
    AUTO,
    LOCAL,
    ClusterConfigError,
    announced_address,
    configured_address,
    connection_error,
)
from jobs.cluster.local_ray import local_ray
from jobs.cluster.settings import (
    QUIET,
    cluster_variables,
    one_line,
    ray_settings,
    token_is_configured,
)
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
            address = _running_cluster(log)
            if address is None:
                cpus = max(replicas, os.cpu_count() or 1)
                stack.enter_context(local_ray(cpus, log))
                description = "local Ray"
            else:
                stack.enter_context(_connected(address))
                description = f"Ray cluster at {address}"
        yield description


def _running_cluster(log: RunLog) -> str | None:
    """Returns HOST:PORT of the running cluster to use; None: start a local one.

    Raises:
        ClusterConfigError: RAY_ADDRESS is not valid, or names a cluster that does not answer.
    """
    address = configured_address(os.environ)
    if address == LOCAL:
        return None
    if address is not None and address != AUTO:
        reason = connection_error(address)
        if reason is not None:
            raise ClusterConfigError(
                f"no Ray cluster answers at RAY_ADDRESS={address} ({reason}); start it or unset it"
            )
        return address

    announced = announced_address(os.environ, log)
    if announced is not None:
        reason = connection_error(announced)
        if reason is None:
            return announced
        log.event("announced_cluster_ended", f"the Ray cluster at {announced} has ended ({reason})")
    if address == AUTO:
        raise ClusterConfigError(
            "RAY_ADDRESS=auto, and no running Ray cluster was started on this machine by this user "
            "or root; start one with `ray start --head`, or set RAY_ADDRESS=HOST:PORT"
        )
    return None


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connects to a running cluster, with the token if the user has one.

    Raises:
        ClusterConfigError: the cluster refuses the connection.
    """
    with ray_settings(cluster_variables(os.environ)):
        import ray

        try:
            _connect(address)
            yield
        finally:
            ray.shutdown()


def _connect(address: str) -> None:
    import ray

    try:
        ray.init(address=address, **QUIET)
    # Ray raises errors of many classes: of the connection, the token and the versions.
    except Exception as error:
        raise ClusterConfigError(_refusal(address, error)) from error


def _refusal(address: str, error: Exception) -> str:
    """Returns the message for a cluster that accepts connections, but not this driver."""
    cure = "set RAY_AUTH_TOKEN to the token of that cluster"
    if not token_is_configured(os.environ):
        cure = "if it has a token, set RAY_AUTH_TOKEN"
    return (
        f"the Ray cluster at {address} does not accept this driver ({one_line(error)}); {cure}, "
        "or set RAY_ADDRESS=local to use a Ray of this machine"
    )
