"""The main job in this process, whole but for Ray and JAX: replicas are fakes that answer by arithmetic."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import actors.pool.replica_pool
from actors.protocol.messages import Request
from jobs import score_dataset
from tests.fakes import FakeReplicas


class FakePool(FakeReplicas):
    """Stands where the job expects `actors.pool.replica_pool.ReplicaPool`."""

    deadly: Callable[[Request], bool] = staticmethod(lambda request: False)
    seed_of_order: int = 7  # in which replicas answer

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__(count=2, seed=self.seed_of_order, poison=type(self).deadly)

    def __enter__(self) -> "FakePool":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def wait_for_minimum(self, *_: object) -> None:
        """They are up."""


@contextlib.contextmanager
def _no_cluster(*_: object) -> Iterator[str]:
    yield "no cluster"


class _NoSignals:
    received = False

    def listen(self) -> None:
        """Tests send none."""


def without_ray(patch: pytest.MonkeyPatch) -> None:
    """Lets `score_dataset.main` run on fakes as long as `patch` holds."""
    patch.setattr(actors.pool.replica_pool, "ReplicaPool", FakePool)
    patch.setattr(score_dataset, "ray_cluster", _no_cluster)
    patch.setattr(score_dataset, "StopSignals", _NoSignals)
    patch.setattr(score_dataset, "RunMetrics", _NoMetrics)


class _NoMetrics(contextlib.nullcontext[None]):
    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def published_until(self, ended: Callable[[], bool]) -> Callable[[], bool]:
        return ended

    def publish(self, _: Any) -> None:
        """There is no Ray to tell."""
