"""Starts replicas as Ray actors and keeps as many of them as the cluster has room for.

Fulfils dispatch's `Replicas`.

In: what a replica needs (`ReplicaSpec`) and how many are wanted. Out: events: a replica came up,
answered a batch, was lost, or has to leave its machine. Ray never restarts an actor here: a lost
one is reported and replaced by a fresh one under a new name, after a back-off, so that an answer of
the old one can never be mistaken. A replica that hangs is ended like one that died. No call here
waits for the head of the cluster: if it is silent for too long, the run ends before Ray ends the
process. Knows nothing of rows and batches' contents, and never imports JAX.
"""

import heapq
import itertools
import os
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import RayTaskError

from actors.pool.gcs_monitor import GcsMonitor
from actors.pool.heartbeat_monitor import HeartbeatMonitor
from actors.pool.remote import (
    WATCH,
    Place,
    RemoteReplica,
    blame,
    cluster_free,
    cluster_total,
    draining_nodes,
    driver_is_dead,
    head_patience_s,
    sentence,
)
from actors.protocol.errors import ClusterLostError, ModelError
from actors.protocol.events import (
    Assignment,
    BatchDone,
    Blame,
    Event,
    ReplicaLeaving,
    ReplicaLost,
    ReplicaReady,
)
from actors.protocol.messages import ReplicaInfo

SOON_S = 0.05
REPOSITORY = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """How many replicas of which size, and how patient to be with them."""

    minimum: int
    maximum: int
    devices: int  # of one replica
    in_flight: int = 2
    device: Literal["auto", "cpu", "gpu"] = "auto"  # auto: GPUs when the cluster has any
    max_load_losses: int = 3  # replicas lost in a row before any came up: then the job stops
    backoff_s: float = 1.0  # doubles with every loss in a row
    max_backoff_s: float = 60.0
    remind_s: float = 30.0  # while replicas are missing, how often to say why
    step_timeout_s: float = 600.0  # a replica whose engine finishes no step for so long hangs
    drain_poll_s: float = 5.0  # how often to ask which nodes the cluster takes back
    # a head that says nothing for so long is gone
    head_silence_s: float = field(default_factory=head_patience_s)


@dataclass(slots=True)
class _Member:
    """One actor: its handle, where it runs once its process lives, and its information once it is up."""

    actor: Any
    place: Place | None = None
    info: ReplicaInfo | None = None  # never without its place
    leaving: bool = False  # its machine goes soon: another one is wanted in its stead already


@dataclass(frozen=True, slots=True)
class _News:
    """Something a Ray callback noticed, in the order of arrival."""

    replica: str
    kind: Literal["place", "load", "heartbeat"] | Assignment
    future: "Future[Any]" = field(compare=False)


class ReplicaPool:
    """Up to `maximum` replicas. Use as a context manager: leaving it ends all actors."""

    def __init__(
        self,
        spec: object,
        config: PoolConfig,
        *,
        replica_class: str = "actors.replica:Replica",
        notify: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        """Asks Ray for all actors at once.

        They come up as the cluster finds room. `ray.init` must have been called.

        `notify(event, message, **figures)` is told in words what people want to know at once: losses, machines that go, shortage.
        """
        self._config, self._class, self._notify = config, replica_class, notify
        self._spec = ray.put(spec)  # once: the table of token bytes is large
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        self._members: dict[str, _Member] = {}
        self._wanted = config.maximum
        self._numbers = itertools.count()
        self._respawns: list[float] = []  # heap of times at which a replacement is due
        self._losses = 0  # in a row, without a replica coming up in between
        # whether `minimum` replicas were up at once: then they can be, and the run goes on with
        # fewer
        self._started = False
        self._heartbeats = HeartbeatMonitor(config.step_timeout_s)
        self._reminded_s = time.monotonic()
        self._backlog: list[Event] = []
        self._gpus = self._use_gpus()
        self._gcs = GcsMonitor(draining_nodes, config.drain_poll_s, config.head_silence_s)
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

    def wait_for_minimum(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Returns when `minimum` replicas are up, or when `interrupted` became true.

        Raises:
            ModelError: a replica cannot load the model.
            ClusterLostError: the head of the cluster is gone.
        """
        while self.up < self._config.minimum and not interrupted():
            self._backlog += self._collect(0.5)
        self._started = True

    def submit(self, assignment: Assignment) -> None:
        """Hands a batch to its replica without waiting.

        If the replica is gone by now, its `ReplicaLost` is under way.
        """
        member = self._members.get(assignment.replica)
        if member is not None:
            reference = member.actor.run.remote(assignment.batch)
            self._watch(reference, assignment.replica, assignment)

    def want(self, count: int) -> None:
        """From now on `count` replicas are enough: what is still to come up beyond that is called off. Never grows again."""
        self._wanted = min(self._wanted, count)
        while self._respawns and self._staying() > self._wanted:
            heapq.heappop(self._respawns)
        for name in [
            name
            for name, member in self._members.items()
            if member.info is None and not member.leaving
        ]:
            if self._staying() <= self._wanted:
                break
            self._end(name)

    def retire(self, replica: str) -> None:
        """Ends a replica that holds no batch.

        Its devices are free again. Another one takes its place if `wanted` says so.
        """
        self._end(replica)
        self._fill()

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Returns what happened since the last call; waits up to `timeout_s` when nothing did.

        Raises:
            ModelError: a replica cannot load the model, or so many were lost while loading that none ever will.
            ClusterLostError: the head of the cluster, or the driver's own node, is gone.
        """
        backlog, self._backlog = self._backlog, []
        return backlog or self._collect(timeout_s)

    def close(self) -> None:
        """Ends all actors; batches they hold are lost."""
        for name in list(self._members):
            self._end(name)
        self._gcs.close()

    # -- actors -----------------------------------------------------------------------------------------------------------------

    def _use_gpus(self) -> bool:
        if self._config.device == "auto":
            return cluster_total("GPU") > 0
        return self._config.device == "gpu"

    def _spawn(self) -> None:
        name = f"replica-{next(self._numbers)}"
        options: dict[str, Any] = {
            "num_cpus": 1,
            "num_gpus": self._config.devices if self._gpus else 0,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": self._config.in_flight + 2,
            "concurrency_groups": {WATCH: 1},
            "runtime_env": {"env_vars": self._environment()},
        }
        actor: Any = ray.remote(**options)(RemoteReplica).remote()
        self._members[name] = _Member(actor)
        self._watch(actor.place.remote(), name, "place")

    def _end(self, name: str) -> None:
        """Ends an actor, whatever it does; nothing it still says is heard."""
        member = self._members.pop(name, None)
        if member is not None:
            self._heartbeats.forget(name)
            ray.kill(member.actor)

    def _staying(self) -> int:
        """Actors that are up or on their way, and those planned; without those that leave."""
        return sum(1 for member in self._members.values() if not member.leaving) + len(
            self._respawns
        )

    def _fill(self, delay_s: float = 0.0) -> None:
        """Plans as many actors as are missing."""
        while self._staying() < self._wanted:
            heapq.heappush(self._respawns, time.monotonic() + delay_s)

    def _environment(self) -> dict[str, str]:
        """Variables that must be set before JAX starts.

        On GPUs the count of virtual CPU devices changes nothing.
        """
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={self._config.devices}"
        path = os.pathsep.join(filter(None, [REPOSITORY, os.environ.get("PYTHONPATH", "")]))
        return {"XLA_FLAGS": flags.strip(), "PYTHONPATH": path} | (
            {} if self._gpus else {"JAX_PLATFORMS": "cpu"}
        )

    def _watch(
        self, reference: Any, replica: str, kind: Literal["place", "load", "heartbeat"] | Assignment
    ) -> None:
        """Queues the answer when it comes: no polling, whatever the number of replicas."""
        reference.future().add_done_callback(
            lambda future: self._news.put(_News(replica, kind, future))
        )

    # -- events -----------------------------------------------------------------------------------------------------------------

    def _collect(self, timeout_s: float) -> list[Event]:
        self._gcs.check()
        self._respawn_due()
        self._remind()
        events = [*self._hung(), *self._drained()]
        if self._respawns:
            timeout_s = min(timeout_s, max(SOON_S, self._respawns[0] - time.monotonic()))
        try:
            news = (
                self._news.get(timeout=timeout_s)
                if timeout_s > 0 and not events
                else self._news.get_nowait()
            )
            while True:
                events += self._event(news)
                news = self._news.get_nowait()
        except queue.Empty:
            return events

    def _event(self, news: _News) -> list[Event]:
        member = self._members.get(news.replica)
        if member is None:
            return []  # of a replica that was given up
        error = news.future.exception()
        if error is not None:
            if driver_is_dead(error):
                told = "the Ray node of this driver has died; committed shards are kept, the same command continues the run"
                # now: Ray may end this process at any moment
                self._notify("cluster_lost", told, level="error")
                raise ClusterLostError(f"{told} ({sentence(error)})")
            self._stop_if_hopeless(error, loading=member.info is None)
            return [
                self._lose(
                    news.replica, sentence(error), "nobody" if member.leaving else blame(error)
                )
            ]
        if isinstance(news.kind, Assignment):
            return [BatchDone(news.kind, news.future.result())]
        if news.kind == "heartbeat":
            reason = self._heartbeats.answered(news.replica, news.future.result())
            return (
                [] if reason is None else [self._lose(news.replica, f"hung: {reason}", "replica")]
            )
        if news.kind == "place":
            member.place = news.future.result()
            self._heartbeats.begin(news.replica)
            # Only now: of a replica that is up it is known where it runs.
            self._watch(
                member.actor.load.remote(self._class, self._spec, news.replica),
                news.replica,
                "load",
            )
            return []
        member.info = news.future.result()
        self._losses = 0
        return [ReplicaReady(news.replica, member.info)]

    def _stop_if_hopeless(self, error: BaseException, *, loading: bool) -> None:
        """Ends the job when no replica will ever work.

        While others work, or when machines go, a loss is only a loss.

        Raises:
            ModelError: the first replicas cannot load the model and say that trying again would fail again, or they were lost
                while loading again and again.
        """
        if blame(error) != "replica":
            return
        self._losses += 1
        cause = error.cause if isinstance(error, RayTaskError) else error
        if self.up and (self._started or not loading):
            return
        if isinstance(cause, ModelError) and not self.up:
            raise ModelError(str(cause))
        if loading and self._losses >= self._config.max_load_losses:
            raise ModelError(
                f"no replica could load the model: {self._losses} were lost in a row while "
                f"loading, the last: {sentence(error)}"
            )

    def _lose(self, name: str, reason: str, to_blame: Blame) -> ReplicaLost:
        """Gives the replica up, whatever it still does, and plans a replacement."""
        self._end(name)
        delay_s = 0.0
        if to_blame == "replica":
            delay_s = min(
                self._config.max_backoff_s,
                self._config.backoff_s * 2 ** min(max(0, self._losses - 1), 30),
            )
        again = self._staying() < self._wanted
        self._fill(delay_s)
        told = f"{name} is lost ({reason})" + (
            f"; another one is asked for in {delay_s:g} s" if again else ""
        )
        self._notify(
            "replica_lost", told, level="warning", replica=name, reason=reason, blame=to_blame
        )
        return ReplicaLost(name, reason, to_blame)

    def _hung(self) -> list[Event]:
        """Asks replicas for their heartbeat, without waiting for it, and gives up those that have not answered for too long."""
        ask, silent = self._heartbeats.turn()
        for name in ask:
            self._watch(self._members[name].actor.heartbeat.remote(), name, "heartbeat")
        return [self._lose(name, f"hung: {reason}", "replica") for name, reason in silent]

    def _drained(self) -> list[Event]:
        """Looks which machines the cluster takes back.

        Asks for replicas elsewhere before they are gone.
        """
        nodes, events = self._gcs.draining, list[Event]()
        if not nodes:
            return events
        staying = [(name, member) for name, member in self._members.items() if not member.leaving]
        for name, member in staying:
            if member.place is None or member.place.node not in nodes:
                continue
            reason = f"the cluster drains its node {member.place.address}"
            if member.info is None:
                events.append(self._lose(name, reason, "nobody"))
            else:
                member.leaving = True
                self._fill()
                told = f"{name} gets no more work: {reason}; another one is asked for"
                self._notify("replica_leaving", told, level="warning", replica=name, reason=reason)
                events.append(ReplicaLeaving(name, reason))
        return events

    def _respawn_due(self) -> None:
        """Starts actors that are due.

        That waits for the head, so the head has to have answered something since.
        """
        while (
            self._respawns
            and self._respawns[0] <= time.monotonic()
            and self._gcs.answered_since(self._respawns[0])
        ):
            heapq.heappop(self._respawns)
            self._spawn()

    def _remind(self) -> None:
        """Says now and then what is missing, while fewer than `minimum` replicas are up."""
        due_s = self._reminded_s + self._config.remind_s
        if due_s > time.monotonic() or not self._gcs.answered_since(due_s):
            return
        self._reminded_s = time.monotonic()
        if self.up < self._config.minimum:
            self._notify(
                "waiting",
                self._shortage(),
                level="warning",
                up=self.up,
                minimum=self._config.minimum,
            )

    def _shortage(self) -> str:
        kind, each = ("GPU", self._config.devices) if self._gpus else ("CPU", 1)
        has, free = cluster_total(kind), cluster_free(kind)
        loading = len(self._members) - self.up
        return (
            f"waiting for replicas: {self.up} of at least {self._config.minimum} up, {loading} "
            "loading or waiting for room; "
            f"each takes {each} {kind}, the cluster has {has:g} {kind} of which {free:g} are free; "
            "add nodes or lower --replicas or --mesh"
        )
