"""Sizes and time limits of a pool of replicas.

Does not import Ray, which reads its variables at that moment: the driver sets them first.
"""

import os
from dataclasses import dataclass, field
from typing import Literal

RECONNECT_TIMEOUT = "RAY_gcs_rpc_server_reconnect_timeout_s"  # Ray's own name
DEFAULT_RECONNECT_TIMEOUT_S = 60.0
HEAD_SILENCE_SHARE = 0.25


def default_head_silence_s() -> float:
    """Returns for how long the head may be silent, in seconds.

    A share of the time after which Ray ends the process of its own accord: the rest is for commits,
    the report and the end of the process.
    """
    timeout_s = float(os.environ.get(RECONNECT_TIMEOUT, DEFAULT_RECONNECT_TIMEOUT_S))
    return timeout_s * HEAD_SILENCE_SHARE


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Number and size of replicas, and time limits."""

    minimum: int
    maximum: int
    devices: int  # of one replica
    in_flight: int = 2
    device: Literal["auto", "cpu", "gpu"] = "auto"  # auto: GPUs when the cluster has any
    max_load_losses: int = 3  # replicas lost in a row before any came up: then the job stops
    backoff_s: float = 1.0  # doubles with every loss in a row
    max_backoff_s: float = 60.0
    remind_s: float = 30.0  # between messages while replicas are missing
    step_timeout_s: float = 600.0  # a replica whose engine finishes no step for so long hangs
    drain_poll_s: float = 2.0  # between requests for the nodes that are drained
    # A head that does not answer for this long is gone.
    head_silence_s: float = field(default_factory=default_head_silence_s)
