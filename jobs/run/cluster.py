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

    A local cluster asks for a token even of the users of this machine; the token is made for it and
    forgotten with it. It offers as many CPUs as replicas need, so that all of them start on a
    machine of fewer cores.

    Yields:
        What it is connected to, in words.

    Raises:
        ConfigError: RAY_ADDRESS names a cluster that does not answer.
    """
    named = os.environ.get("RAY_ADDRESS")
    address = named or _announced() or "local"
    _choose_authentication(address, explicit=named is not None)
    import ray

    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address != "local":
        try:
            with keep_handlers():
                ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError) as error:
            if named:
                reason = " ".join(str(error).split())[:300]
                raise ConfigError(
                    f"no Ray cluster answers at RAY_ADDRESS={named} ({reason}); start it or unset "
                    "it"
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
        yield (
            "local Ray"
            if address == "local"
            else f"Ray cluster at {ray.get_runtime_context().gcs_address}"
        )
    finally:
        ray.shutdown()


def _announced() -> str | None:
    """Returns the address that the last `ray start` on this machine left, if it did."""
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    return note.read_text().strip() or None if note.exists() else None


def _choose_authentication(address: str, *, explicit: bool) -> None:
    """Decides about tokens before Ray is imported, which reads these variables once.

    What the user set stays.

    A local cluster gets a token of this process alone. To an announced cluster goes the token that
    `ray start` used, if there is one. A cluster that was named explicitly is its user's to
    configure.
    """
    if "ray" in sys.modules or "RAY_AUTH_MODE" in os.environ:
        return
    if address == "local":
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    elif not explicit and TOKEN_FILE.exists():
        os.environ["RAY_AUTH_MODE"] = "token"
