"""Variables that Ray reads when it is imported: authentication, and settings of a driver.

They are set for the time of a connection and restored after it.
"""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from jobs.cluster.authentication import AUTH_MODE, TOKEN, Mode

# What a driver whose cluster is lost waits for at its end: the last events of tasks (Ray's default
# is 5,000 ms), and up to two exports of metrics to the agent of its node, which hangs for a minute
# once its raylet is dead (OpenTelemetry's default is 10 s; an agent that works takes milliseconds).
DRIVER_VARIABLES = {
    "RAY_task_events_shutdown_flush_timeout_ms": "500",
    "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "2s",
}
# All servers of a local Ray listen on 127.0.0.1 only. Ray has this mode for laptops and reads it
# from this variable; `_node_ip_address="127.0.0.1"` becomes the address of the network.
LOOPBACK_VARIABLES = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Ray starts an idle worker per core for a node's first driver, a second of processor time each. A
# replica cannot use them: its process starts with variables of its own.
WORKER_VARIABLES = {"RAY_prestart_worker_first_driver": "0"}
# Arguments of `ray.init`: the driver logs for itself.
QUIET: Mapping[str, Any] = MappingProxyType({"logging_level": "ERROR", "log_to_driver": False})
REASON_CHARS = 300


def cluster_variables(mode: Mode) -> dict[str, str]:
    """Returns the variables for a running cluster."""
    return {**DRIVER_VARIABLES, AUTH_MODE: mode}


def local_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables for a local Ray: a new random token, no port open to others.

    Workers start when they are needed.
    """
    variables = {**DRIVER_VARIABLES, **LOOPBACK_VARIABLES, **WORKER_VARIABLES}
    if environment.get(AUTH_MODE, "token") == "token":
        variables[AUTH_MODE] = "token"
        variables[TOKEN] = secrets.token_hex(32)
    return variables


@contextlib.contextmanager
def ray_settings(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets variables that the user has not set, within the block, and makes Ray read them."""
    added: list[str] = []
    for name, value in variables.items():
        if name not in os.environ:
            os.environ[name] = value
            added.append(name)
    _reload()
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _reload() -> None:
    """Makes Ray, where it is imported already, read its variables again.

    Ray does the same when it chooses a token itself; there is no public function for it.
    """
    if "ray" not in sys.modules:
        return
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    is_cluster = not ray_constants.IS_WINDOWS_OR_OSX
    value = os.environ.get(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR)
    if value is not None:
        is_cluster = value.lower() in ("1", "true")
    ray_constants.ENABLE_RAY_CLUSTER = is_cluster


def one_line(error: Exception) -> str:
    """Returns the message of an error of Ray, which may be pages, as a line of limited length."""
    words = " ".join(str(error).split())
    return words[:REASON_CHARS] or type(error).__name__
