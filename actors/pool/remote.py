"""The Ray actor around a replica, and the requests of the pool to Ray.

Never imports JAX: the engine does.
"""

import importlib
import os
import re
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    RayError,
    RayTaskError,
)

from actors.compile_cache import compile_cache
from actors.pool.environment import jax_variables
from actors.protocol.events import Blame, Heartbeat
from actors.protocol.messages import Batch, BatchResult, ReplicaInfo, ReplicaStats
from actors.replica import StartUp

LONGEST_REASON = 500  # characters
# methods of this group have a thread of their own: they answer however many batches run
WATCH = "watch"
COMPILATION = "compilation"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an actor runs."""

    node: str  # Ray's id of it
    address: str
    pid: int
    # Name of its cache of compiled programs, the same for replicas that share one; "": none does.
    program_cache: str = ""


class RemoteReplica:
    """What Ray runs.

    The engine, and with it JAX, is imported when `load` is called: then Ray has set the visible
    devices.
    """

    def __init__(self) -> None:
        self._replica: Any = None
        self._start = StartUp()

    @ray.method(concurrency_group=WATCH)
    def place(self) -> Place:
        """Answers as soon as the process lives, while the model still loads."""
        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        node: str = ray.get_runtime_context().get_node_id()
        cache = compile_cache(os.environ)
        return Place(node, address, os.getpid(), cache.url or f"{node}:{cache.folder}")

    def load(
        self,
        replica_class: str,
        spec: object,
        name: str,
        devices: int,
        may_compile: bool = True,
    ) -> ReplicaInfo:
        """Makes the replica on a mesh of `devices`; returns when it can take batches.

        Args:
            replica_class: module:class.
            spec: of the replica.
            name: of the replica.
            devices: of its mesh.
            may_compile: False: another replica compiles first, see `allow_compilation`.
        """
        if may_compile:
            self._start.allow_compilation()
        gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        os.environ.update(jax_variables(os.environ, devices, has_gpus=bool(gpus)))
        module, _, attribute = replica_class.partition(":")
        replica = getattr(importlib.import_module(module), attribute)(spec, name, self._start)
        info: ReplicaInfo = replica.info()
        self._replica = replica
        return info

    @ray.method(concurrency_group=WATCH)
    def allow_compilation(self) -> None:
        """Lets the replica compile: the programs of another one are in the cache."""
        self._start.allow_compilation()

    @ray.method(concurrency_group=COMPILATION)
    def wait_for_programs(self) -> None:
        """Returns when the programs that the replica needs are in the cache."""
        self._start.wait_for_programs()

    def run(self, batch: Batch) -> BatchResult:
        """Runs a batch to its end."""
        result: BatchResult = self._replica.run(batch)
        return result

    def stats(self) -> ReplicaStats:
        """Returns the counters."""
        stats: ReplicaStats = self._replica.stats()
        return stats

    @ray.method(concurrency_group=WATCH)
    def heartbeat(self) -> Heartbeat:
        """Returns what the engine is doing and for how long; answered while batches run."""
        if self._replica is None:
            return self._start.heartbeat()
        heartbeat: Heartbeat = self._replica.heartbeat()
        return heartbeat


def cluster_total(resource: str) -> float:
    """Returns how much of a resource the whole cluster has."""
    return float(ray.cluster_resources().get(resource, 0))  # type: ignore[no-untyped-call]


def cluster_free(resource: str) -> float:
    """Returns the unused amount of a resource."""
    return float(ray.available_resources().get(resource, 0))  # type: ignore[no-untyped-call]


def draining_nodes() -> set[str]:
    """Returns the ids of the nodes that the cluster takes back soon.

    Sources: `ray drain-node`, the autoscaler, a pre-emption notice.
    """
    # Ray has no public function for this; its own Serve and Train use the same one. The version is
    # pinned and a test calls it.
    from ray._private.state import state

    return set(state.get_draining_nodes())


def raylet_socket() -> str | None:
    """Returns the path of the Unix socket of this node's raylet; None without a node, or socket."""
    # Ray has no public function for this.
    from ray._private.worker import global_worker

    if global_worker.node is None:
        return None
    address: str = global_worker.node.raylet_socket_name
    if "://" in address:
        return None  # Windows
    return address


def driver_is_dead(error: BaseException) -> bool:
    """Returns whether the cluster ended an actor because the node of this process is gone."""
    return isinstance(error, ActorDiedError) and "its owner has died" in str(error)


def sentence(error: BaseException) -> str:
    """Returns the cause in one line, without Ray's remote traceback."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    if isinstance(error, RayError):
        words = " ".join(str(error).split())
        # Ray's preamble repeats the name of the actor
        cause = re.split(r"The actor (?:is dead|died) because ", words)[-1]
        return cause.partition(" Some common causes include")[0][:LONGEST_REASON]
    return f"{type(error).__name__}: {error}"


def blame(error: BaseException) -> Blame:
    """Returns the part to which the loss of an actor is attributed, from the error of its call."""
    if isinstance(error, NodeDiedError | ActorUnavailableError):
        return "node"  # unavailable: the node cannot report how the process died
    if not isinstance(error, ActorDiedError):
        return "replica"
    # Ray reports the rest only as text: "… because its node has died. … the actor's node was
    # terminated expectedly: …"
    words = str(error)
    if error.preempted or "node was terminated expectedly" in words:
        return "nobody"
    if "its node has died" in words:
        return "node"
    return "replica"
