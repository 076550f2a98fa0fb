"""Starts replicas as Ray actors and keeps as many of them as the cluster has room for.

Implements dispatch's `Replicas`.

In: what a replica needs (`ReplicaSpec`) and how many are wanted. Out: events: a replica came up,
answered a batch, was lost, or has to leave its machine. Ray never restarts an actor here: a lost
one is reported and replaced by a fresh one under a new name, after a back-off, so that an answer of
the old one can never be mistaken. A replica that hangs is ended like one that died. No call here
waits for the head of the cluster: if it is silent for too long, the run ends before Ray ends the
process. Does not depend on the contents of batches, and never imports JAX.
"""

import heapq
import itertools
import os
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.exceptions import RayTaskError

from actors.pool.activity import describe_activity
from actors.pool.compile_turns import CompileTurns
from actors.pool.config import PoolConfig
from actors.pool.environment import process_variables
from actors.pool.gcs_monitor import GcsMonitor
from actors.pool.heartbeat_monitor import HeartbeatMonitor
from actors.pool.node_monitor import NodeMonitor
from actors.pool.remote import (
    COMPILATION,
    WATCH,
    Place,
    RemoteReplica,
    blame,
    cluster_free,
    cluster_total,
    draining_nodes,
    driver_is_dead,
    raylet_socket,
    sentence,
)
from actors.protocol.errors import ClusterLostError, ModelError
from actors.protocol.events import (
    Activity,
    Assignment,
    BatchDone,
    Blame,
    Event,
    ReplicaLeaving,
    ReplicaLost,
    ReplicaReady,
)
from actors.protocol.messages import ReplicaInfo

SOON_S = 0.05  # shortest wait for an actor that is due
MAX_DOUBLINGS = 30  # of the back-off
Call = Literal["place", "load", "programs", "heartbeat"]  # of an actor, beside batches


@dataclass(slots=True)
class _Member:
    """One actor of the pool."""

    actor: Any
    place: Place | None = None  # where it runs, once its process lives
    info: ReplicaInfo | None = None  # once it can take batches; never without `place`
    is_leaving: bool = False  # its machine goes soon: a replacement is planned already


@dataclass(frozen=True, slots=True)
class _CallDone:
    """A call of an actor that has returned or failed, in the order of arrival."""

    replica: str
    call: Call | Assignment
    future: "Future[Any]" = field(compare=False)


class ReplicaPool:
    """Up to `maximum` replicas. Use as a context manager: leaving it ends all actors."""

    def __init__(
        self,
        spec: object,
        config: PoolConfig,
        *,
        replica_class: str = "actors.replica:Replica",
        actor_class: type[RemoteReplica] = RemoteReplica,
        notify: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        """Requests all actors from Ray; they start as the cluster finds room.

        `ray.init` must have been called.

        Args:
            spec: what the replica class needs, picklable.
            config: sizes and time limits.
            replica_class: module:class of the replica.
            actor_class: the Ray actor that holds a replica.
            notify: `notify(event, message, **figures)` is called at losses, drained machines and
                missing replicas.
        """
        self._config = config
        self._replica_class = replica_class
        self._actor_class = actor_class
        self._notify = notify
        self._spec: Any = ray.put(spec)  # once: the table of token bytes is large
        self._calls_done: queue.SimpleQueue[_CallDone] = queue.SimpleQueue()
        self._members: dict[str, _Member] = {}
        self._wanted = config.maximum
        self._numbers = itertools.count()
        self._respawns: list[float] = []  # heap of times at which a replacement is due
        self._losses_in_a_row = 0  # without a replica that came up in between
        self._load_losses_in_a_row = 0  # those of them that were still loading
        # Whether `minimum` replicas were up at once: then the run continues with fewer.
        self._has_started = False
        self._heartbeats = HeartbeatMonitor(config.step_timeout_s)
        self._turns = CompileTurns()
        self._reminded_s = time.monotonic()
        self._backlog: list[Event] = []
        self._uses_gpus = config.device == "gpu"
        if config.device == "auto":
            self._uses_gpus = cluster_total("GPU") > 0
        self._gcs = GcsMonitor(draining_nodes, config.drain_poll_s, config.head_silence_s)
        self._node = NodeMonitor(raylet_socket())
        for _ in range(config.maximum):
            self._spawn()

    def __enter__(self) -> "ReplicaPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def up(self) -> int:
        """Replicas that can take batches now."""
        return sum(1 for member in list(self._members.values()) if member.info is not None)

    @property
    def wanted(self) -> int:
        """Replicas the run would use if the cluster had room."""
        return self._wanted

    def activity(self) -> Activity:
        """Returns what replicas do that load or compile, for the live view."""
        return describe_activity(self._heartbeats.heartbeats())

    def wait_for_minimum(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Returns when `minimum` replicas are up, or when `interrupted` became true.

        Raises:
            ModelError: a replica cannot load the model.
            ClusterLostError: the head of the cluster is gone.
        """
        while self.up < self._config.minimum and not interrupted():
            self._backlog += self._collect(0.5)
        self._has_started = True

    def submit(self, assignment: Assignment) -> None:
        """Hands a batch to its replica without waiting.

        If the replica is gone by now, its `ReplicaLost` is under way.
        """
        member = self._members.get(assignment.replica)
        if member is not None:
            reference = member.actor.run.remote(assignment.batch)
            self._watch(reference, assignment.replica, assignment)

    def want(self, count: int) -> None:
        """Reduces the replicas wanted to `count`; replicas beyond that are not started any more.

        The number never grows again.
        """
        self._wanted = min(self._wanted, count)
        while self._respawns and self._staying() > self._wanted:
            heapq.heappop(self._respawns)

        for name, member in list(self._members.items()):
            if self._staying() <= self._wanted:
                break
            if member.info is None and not member.is_leaving:
                self._end(name)

    def retire(self, replica: str) -> None:
        """Ends a replica that holds no batch and frees its devices.

        Another one takes its place if more are wanted.
        """
        self._end(replica)
        self._plan_replacements()

    def abandon(self, replica: str) -> None:
        """Ends a replica whatever it holds; none takes its place."""
        self._end(replica)

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Returns what happened since the last call; waits up to `timeout_s` when nothing did.

        Raises:
            ModelError: a replica cannot load the model, or so many were lost while loading that
                none ever will.
            ClusterLostError: the head of the cluster, or the driver's own node, is gone.
        """
        if not self._backlog:
            return self._collect(timeout_s)

        events = self._backlog
        self._backlog = []
        return events

    def close(self) -> None:
        """Ends all actors; batches they hold are lost."""
        for name in list(self._members):
            self._end(name)
        self._gcs.close()
        self._node.close()

    # -- actors ------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        name = f"replica-{next(self._numbers)}"
        gpus = 0
        if self._uses_gpus:
            gpus = self._config.devices
        variables = process_variables(os.environ, uses_gpus=self._uses_gpus)
        options: dict[str, Any] = {
            "num_cpus": 1,
            "num_gpus": gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": self._config.in_flight + 2,
            "concurrency_groups": {WATCH: 1, COMPILATION: 1},
            "runtime_env": {"env_vars": variables},
        }
        actor: Any = ray.remote(**options)(self._actor_class).remote()
        self._members[name] = _Member(actor)
        self._watch(actor.place.remote(), name, "place")

    def _end(self, name: str) -> None:
        """Ends an actor, whatever it does; results that still arrive are ignored."""
        member = self._members.pop(name, None)
        if member is not None:
            self._heartbeats.forget(name)
            ray.kill(member.actor)
            self._allow_compilation(self._turns.forget(name))

    def _staying(self) -> int:
        """Returns the actors that are up, loading or planned, without those that leave."""
        staying = sum(1 for member in self._members.values() if not member.is_leaving)
        return staying + len(self._respawns)

    def _plan_replacements(self, delay_s: float = 0.0) -> bool:
        """Plans as many actors as are missing; returns whether any are."""
        is_missing = self._staying() < self._wanted
        while self._staying() < self._wanted:
            heapq.heappush(self._respawns, time.monotonic() + delay_s)
        return is_missing

    def _load(self, name: str, member: _Member) -> None:
        """Loads a replica whose process lives; of those that share a cache, one compiles first."""
        cache = member.place.program_cache if member.place else ""
        may_compile = not cache or self._turns.join(name, cache)
        load = member.actor.load.remote(
            self._replica_class, self._spec, name, self._config.devices, may_compile
        )
        self._watch(load, name, "load")
        self._watch_programs(name)

    def _allow_compilation(self, names: Sequence[str]) -> None:
        for name in names:
            member = self._members.get(name)
            if member is not None:
                member.actor.allow_compilation.remote()
                self._watch_programs(name)

    def _watch_programs(self, name: str) -> None:
        """Waits for the programs of a replica if others wait for them."""
        if self._turns.is_first(name):
            reference = self._members[name].actor.wait_for_programs.remote()
            self._watch(reference, name, "programs")

    def _watch(self, reference: Any, replica: str, call: Call | Assignment) -> None:
        """Queues the result when it arrives: no polling, whatever the number of replicas."""
        reference.future().add_done_callback(
            lambda future: self._calls_done.put(_CallDone(replica, call, future))
        )

    # -- events ------------------------------------------------------------------------------------

    def _collect(self, timeout_s: float) -> list[Event]:
        self._check_node()
        self._check_head()
        self._spawn_due()
        self._remind()
        events = [*self._hung(), *self._drained()]
        if events:
            timeout_s = 0.0
        if self._respawns:
            timeout_s = min(timeout_s, max(SOON_S, self._respawns[0] - time.monotonic()))

        try:
            done = self._calls_done.get(block=timeout_s > 0, timeout=timeout_s)
            while True:
                events += self._handle(done)
                done = self._calls_done.get_nowait()
        except queue.Empty:
            return events

    def _check_node(self) -> None:
        """Raises ClusterLostError when the driver's own node is gone."""
        if self._node.is_dead():
            raise self._lost_node("its raylet has ended")

    def _lost_node(self, reason: str) -> ClusterLostError:
        """Returns the error of a driver whose own node is gone.

        Logs it, and gives up all objects: Ray ends a process that holds objects of a dead node.
        """
        message = (
            "the Ray node of this driver has died; committed shards are kept, the same command "
            "continues the run"
        )
        # Logged at once: the commits, the report and the end of Ray take some seconds.
        self._notify("cluster_lost", message, level="error")
        self._spec = None
        self._calls_done = queue.SimpleQueue()
        return ClusterLostError(f"{message} ({reason})")

    def _check_head(self) -> None:
        """Raises ClusterLostError when the head has not answered for too long."""
        try:
            self._gcs.check()
        except ClusterLostError:
            # Logged at once: the commits, the report and the end of Ray take some seconds.
            message = "the head of the Ray cluster does not answer: the job ends"
            self._notify("cluster_lost", message, level="error")
            raise

    def _handle(self, done: _CallDone) -> list[Event]:
        member = self._members.get(done.replica)
        if member is None:
            return []  # the replica was given up
        error = done.future.exception()
        if error is not None:
            return [self._failed(done.replica, member, error)]

        result = done.future.result()
        if isinstance(done.call, Assignment):
            self._heartbeats.answered(done.replica)
            return [BatchDone(done.call, result)]
        if done.call == "heartbeat":
            reason = self._heartbeats.received(done.replica, result)
            if reason is None:
                return []
            return [self._lose(done.replica, f"hung: {reason}", "replica")]
        if done.call == "place":
            member.place = result
            self._heartbeats.begin(done.replica)
            # Loading starts here, so the place of a replica that is up is always known.
            self._load(done.replica, member)
            return []
        if done.call == "programs":
            self._allow_compilation(self._turns.filled(done.replica))
            return []

        member.info = result
        self._heartbeats.answered(done.replica)
        self._losses_in_a_row = 0
        self._load_losses_in_a_row = 0
        return [ReplicaReady(done.replica, member.info)]

    def _failed(self, name: str, member: _Member, error: BaseException) -> ReplicaLost:
        """Gives up a replica whose call failed.

        Raises:
            ClusterLostError: the driver's own node is gone.
            ModelError: no replica will ever work.
        """
        if driver_is_dead(error):
            raise self._lost_node(sentence(error))

        self._stop_if_hopeless(error, is_loading=member.info is None)
        to_blame: Blame = "nobody" if member.is_leaving else blame(error)
        return self._lose(name, sentence(error), to_blame)

    def _stop_if_hopeless(self, error: BaseException, *, is_loading: bool) -> None:
        """Ends the job when no replica will ever work.

        While others work, or when machines go, a loss is only a loss.

        Raises:
            ModelError: the first replicas cannot load the model and would fail again, or they were
                lost while loading again and again.
        """
        if blame(error) != "replica":
            return
        self._losses_in_a_row += 1
        if is_loading:
            self._load_losses_in_a_row += 1
        if self.up and (self._has_started or not is_loading):
            return

        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, ModelError) and not self.up:
            raise ModelError(str(cause))
        if is_loading and self._load_losses_in_a_row >= self._config.max_load_losses:
            raise ModelError(
                f"no replica could load the model: {self._load_losses_in_a_row} were lost in a row "
                f"while loading, the last: {sentence(error)}"
            )

    def _lose(self, name: str, reason: str, to_blame: Blame) -> ReplicaLost:
        """Gives the replica up, whatever it still does, and plans a replacement."""
        self._end(name)
        delay_s = self._backoff_s() if to_blame == "replica" else 0.0
        is_replaced = self._plan_replacements(delay_s)

        message = f"{name} is lost ({reason})"
        if is_replaced:
            message += f"; a replacement starts in {delay_s:g} s"
        self._notify(
            "replica_lost", message, level="warning", replica=name, reason=reason, blame=to_blame
        )
        return ReplicaLost(name, reason, to_blame)

    def _backoff_s(self) -> float:
        doublings = min(max(0, self._losses_in_a_row - 1), MAX_DOUBLINGS)
        return min(self._config.max_backoff_s, self._config.backoff_s * 2.0**doublings)

    def _hung(self) -> list[Event]:
        """Requests heartbeats without waiting, and gives up replicas that do not answer."""
        due, silent = self._heartbeats.turn()
        for name in due:
            self._watch(self._members[name].actor.heartbeat.remote(), name, "heartbeat")
        return [self._lose(name, f"hung: {reason}", "replica") for name, reason in silent]

    def _drained(self) -> list[Event]:
        """Plans replacements of replicas on nodes that the cluster takes back soon."""
        events: list[Event] = []
        nodes = self._gcs.draining
        if not nodes:
            return events

        for name, member in list(self._members.items()):
            if member.is_leaving or member.place is None or member.place.node not in nodes:
                continue
            reason = f"the cluster drains its node {member.place.address}"
            if member.info is None:
                events.append(self._lose(name, reason, "nobody"))
            else:
                member.is_leaving = True
                self._plan_replacements()
                message = f"{name} gets no more work: {reason}; a replacement is requested"
                self._notify(
                    "replica_leaving", message, level="warning", replica=name, reason=reason
                )
                events.append(ReplicaLeaving(name, reason))
        return events

    def _spawn_due(self) -> None:
        """Starts the actors that are due.

        A start waits for the head, so the head must have answered since the actor became due.
        """
        while (
            self._respawns
            and self._respawns[0] <= time.monotonic()
            and self._gcs.answered_since(self._respawns[0])
        ):
            heapq.heappop(self._respawns)
            self._spawn()

    def _remind(self) -> None:
        """Logs now and then what is missing while fewer than `minimum` replicas are up."""
        due_s = self._reminded_s + self._config.remind_s
        if due_s > time.monotonic() or not self._gcs.answered_since(due_s):
            return

        self._reminded_s = time.monotonic()
        minimum = self._config.minimum
        if self.up < minimum:
            message = self._shortage()
            self._notify("waiting", message, level="warning", up=self.up, minimum=minimum)

    def _shortage(self) -> str:
        resource = "CPU"
        per_replica = 1
        if self._uses_gpus:
            resource = "GPU"
            per_replica = self._config.devices
        total = cluster_total(resource)
        free = cluster_free(resource)
        loading = len(self._members) - self.up
        return (
            f"waiting for replicas: {self.up} of at least {self._config.minimum} up, {loading} "
            f"loading or waiting for room; each takes {per_replica} {resource}, the cluster has "
            f"{total:g} {resource} of which {free:g} are free; add nodes or lower --replicas or "
            "--mesh"
        )
