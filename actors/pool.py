"""Starts replicas as Ray actors and keeps as many of them as the cluster has room for; fulfils dispatch's `Replicas`.

In: what a replica needs (`ReplicaSpec`) and how many are wanted. Out: events: a replica came up, answered a batch, was lost.
Ray never restarts an actor here: a lost one is reported and replaced by a fresh one under a new name, after a back-off, so that
an answer of the old one can never be mistaken. Knows nothing of rows and batches' contents, and never imports JAX.
"""

import heapq
import importlib
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
from ray.exceptions import RayError, RayTaskError

from actors.errors import ModelError
from actors.events import BatchDone, Event, ReplicaLost, ReplicaReady
from actors.messages import Batch, BatchResult, ReplicaInfo, ReplicaStats

REPOSITORY = str(Path(__file__).resolve().parent.parent)


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


class _ReplicaActor:
    """What Ray runs. The engine, and with it JAX, is imported when `load` is called: then Ray has set the visible devices."""

    def load(self, replica_class: str, spec: object, name: str) -> ReplicaInfo:
        module, _, attribute = replica_class.partition(":")
        self._replica = getattr(importlib.import_module(module), attribute)(spec, name)
        info: ReplicaInfo = self._replica.info()
        return info

    def run(self, batch: Batch) -> BatchResult:
        result: BatchResult = self._replica.run(batch)
        return result

    def stats(self) -> ReplicaStats:
        stats: ReplicaStats = self._replica.stats()
        return stats


@dataclass(slots=True)
class _Member:
    """One actor: its handle, and its information once it is up."""

    actor: Any
    info: ReplicaInfo | None = None


@dataclass(frozen=True, slots=True)
class _News:
    """Something a Ray callback noticed, in the order of arrival."""

    replica: str
    batch: int | None  # None: loading ended
    future: "Future[Any]" = field(compare=False)


class ReplicaPool:
    """Up to `maximum` replicas. Use as a context manager: leaving it ends all actors."""

    def __init__(
        self,
        spec: object,
        config: PoolConfig,
        *,
        replica_class: str = "actors.replica:Replica",
        notify: Callable[[str], None] = print,
    ) -> None:
        """Asks Ray for all actors at once; they come up as the cluster finds room. `ray.init` must have been called."""
        self._config, self._class, self._notify = config, replica_class, notify
        self._spec = ray.put(spec)  # once: the table of token bytes is large
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        self._members: dict[str, _Member] = {}
        self._numbers = itertools.count()
        self._respawns: list[float] = []  # heap of times at which a replacement is due
        self._losses = 0  # in a row, without a replica coming up in between
        self._reminded_s = time.monotonic()
        self._backlog: list[Event] = []
        self._gpus = self._use_gpus()
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
        return self._config.maximum

    def wait_for_minimum(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Returns when `minimum` replicas are up, or when `interrupted` became true.

        Raises:
            ModelError: a replica cannot load the model.
        """
        while self.up < self._config.minimum and not interrupted():
            self._backlog += self._collect(0.5)

    def submit(self, replica: str, batch: Batch) -> None:
        """Hands a batch over without waiting. A replica that is gone by now has its `ReplicaLost` under way."""
        member = self._members.get(replica)
        if member is not None:
            self._watch(member.actor.run.remote(batch), replica, batch.number)

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Returns what happened since the last call; waits up to `timeout_s` when nothing did.

        Raises:
            ModelError: a replica cannot load the model, or so many were lost while loading that none ever will.
        """
        backlog, self._backlog = self._backlog, []
        return backlog or self._collect(timeout_s)

    def close(self) -> None:
        """Ends all actors; batches they hold are lost."""
        for member in self._members.values():
            ray.kill(member.actor)
        self._members.clear()

    # -- actors -----------------------------------------------------------------------------------------------------------------

    def _use_gpus(self) -> bool:
        if self._config.device == "auto":
            return _cluster("GPU") > 0
        return self._config.device == "gpu"

    def _spawn(self) -> None:
        name = f"replica-{next(self._numbers)}"
        options: dict[str, Any] = {
            "num_cpus": 1,
            "num_gpus": self._config.devices if self._gpus else 0,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": self._config.in_flight + 2,
            "runtime_env": {"env_vars": self._environment()},
        }
        actor: Any = ray.remote(**options)(_ReplicaActor).remote()
        self._members[name] = _Member(actor)
        self._watch(actor.load.remote(self._class, self._spec, name), name, None)

    def _environment(self) -> dict[str, str]:
        """Variables that must be set before JAX starts. On GPUs the count of virtual CPU devices changes nothing."""
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={self._config.devices}"
        path = os.pathsep.join(filter(None, [REPOSITORY, os.environ.get("PYTHONPATH", "")]))
        return {"XLA_FLAGS": flags.strip(), "PYTHONPATH": path} | ({} if self._gpus else {"JAX_PLATFORMS": "cpu"})

    def _watch(self, reference: Any, replica: str, batch: int | None) -> None:
        """Queues the answer when it comes: no polling, whatever the number of replicas."""
        reference.future().add_done_callback(lambda future: self._news.put(_News(replica, batch, future)))

    # -- events -----------------------------------------------------------------------------------------------------------------

    def _collect(self, timeout_s: float) -> list[Event]:
        self._respawn_due()
        self._remind()
        if self._respawns:
            timeout_s = min(timeout_s, max(0.0, self._respawns[0] - time.monotonic()))
        events: list[Event] = []
        try:
            news = self._news.get(timeout=timeout_s) if timeout_s > 0 else self._news.get_nowait()
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
            return [self._lose(news, member, error)]
        if news.batch is not None:
            return [BatchDone(news.replica, news.future.result())]
        member.info = news.future.result()
        self._losses = 0
        return [ReplicaReady(news.replica, member.info)]

    def _lose(self, news: _News, member: _Member, error: BaseException) -> ReplicaLost:
        """Gives the replica up, whatever it still does, and plans a replacement.

        Raises:
            ModelError: the error says that trying again would fail again, or too many were lost while loading.
        """
        del self._members[news.replica]
        ray.kill(member.actor)
        reason = _sentence(error)
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, ModelError):
            raise ModelError(str(cause))
        self._losses += 1
        if news.batch is None and self._losses >= self._config.max_load_losses:
            raise ModelError(
                f"no replica could load the model: {self._losses} were lost in a row while loading, the last: {reason}"
            )
        delay_s = min(self._config.max_backoff_s, self._config.backoff_s * 2 ** (self._losses - 1))
        heapq.heappush(self._respawns, time.monotonic() + delay_s)
        self._notify(f"{news.replica} is lost ({reason}); another one is asked for in {delay_s:g} s")
        return ReplicaLost(news.replica, reason)

    def _respawn_due(self) -> None:
        while self._respawns and self._respawns[0] <= time.monotonic():
            heapq.heappop(self._respawns)
            self._spawn()

    def _remind(self) -> None:
        """Says now and then what is missing, while fewer than `minimum` replicas are up."""
        if self._reminded_s + self._config.remind_s > time.monotonic():
            return
        self._reminded_s = time.monotonic()
        if self.up < self._config.minimum:
            self._notify(self._shortage())

    def _shortage(self) -> str:
        kind, each = ("GPU", self._config.devices) if self._gpus else ("CPU", 1)
        has, free = _cluster(kind), float(ray.available_resources().get(kind, 0))  # type: ignore[no-untyped-call]
        loading = len(self._members) - self.up
        return (
            f"waiting for replicas: {self.up} of at least {self._config.minimum} up, {loading} loading or waiting for room; "
            f"each takes {each} {kind}, the cluster has {has:g} {kind} of which {free:g} are free; "
            "add nodes or lower --replicas or --mesh"
        )


def _cluster(kind: str) -> float:
    """Returns how much of a resource the whole cluster has."""
    return float(ray.cluster_resources().get(kind, 0))  # type: ignore[no-untyped-call]


def _sentence(error: BaseException) -> str:
    """Returns the cause in one line, without Ray's remote traceback."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    if isinstance(error, RayError):
        return " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {error}"
