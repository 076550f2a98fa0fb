"""Connects to Ray, quietly and safely.

Metrics are in jobs/run/metrics.py, the rest of Ray in actors/pool/replica_pool.py.
"""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.cli.signals import keep_handlers
from pipeline.errors import ConfigError

TOKEN_FILE = Path.home() / ".ray" / "auth_token"


@contextmanager
def ray_cluster(replicas: int) -> Iterator[str]:
    """Connects to a running Ray cluster, or starts a local one.

    The running cluster is the one of RAY_ADDRESS, or the one that `ray start` announced on this
    machine.

    Ray's own "auto" is not used: it searches the process table and would join a cluster that
    another program started for itself and takes down when it ends. `RAY_ADDRESS=local` always
    starts one.

    A local cluster requires a token, also from users of this machine; the token is random and is
    not stored. The cluster offers as many CPUs as replicas need, so that all of them start on a
    machine with fewer cores.

    Yields:
        A description of the cluster, for the log.

    Raises:
        ConfigError: RAY_ADDRESS names a cluster that does not answer.
    """
    configured_address = os.environ.get("RAY_ADDRESS")
    address = configured_address or _announced_address() or "local"
    _choose_authentication(address, explicit=configured_address is not None)
    import ray

    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address != "local":
        try:
            with keep_handlers():
                ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError) as error:
            if configured_address:
                reason = " ".join(str(error).split())[:300]
                raise ConfigError(
                    f"no Ray cluster answers at RAY_ADDRESS={configured_address} ({reason}); "
                    "start it or unset it"
                ) from error
            address = "local"  # the announced cluster has ended
    if address == "local":
        with keep_handlers():
            ray.init(
                address="local",
                num_cpus=max(replicas, os.cpu_count() or 1),
                include_dashboard=False,
                **quiet,
            )
    try:
        description = "local Ray"
        if address != "local":
            description = f"Ray cluster at {ray.get_runtime_context().gcs_address}"
        yield description
    finally:
        ray.shutdown()


def _announced_address() -> str | None:
    """Returns the address that the last `ray start` on this machine wrote; None without one."""
    ray_folder = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray"
    address_file = ray_folder / "ray_current_cluster"
    if not address_file.exists():
        return None
    return address_file.read_text().strip() or None


def _choose_authentication(address: str, *, explicit: bool) -> None:
    """Sets Ray's authentication variables before Ray is imported, which reads them once.

    Variables that the user has set are not changed. A local cluster gets a random token of this
    process. An announced cluster gets the token that `ray start` used, if there is one. For a
    cluster that RAY_ADDRESS names, the user configures the token.
    """
    if "ray" in sys.modules or "RAY_AUTH_MODE" in os.environ:
        return
    if address == "local":
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif not explicit and TOKEN_FILE.exists():
        os.environ["RAY_AUTH_MODE"] = "token"
