"""A driver over a real Ray pool whose actors run a stub; prints the number of commits.

python -m tests.end_to_end.chaos_driver INPUT OUTPUT
"""

import sys
import time
from collections.abc import Sequence

from actors.pool.config import PoolConfig
from actors.pool.replica_pool import ReplicaPool
from actors.protocol.messages import Batch, BatchResult
from jobs.cluster.connection import ray_cluster
from tests.fakes import StubReplica
from tests.host_side import drive


class SlowStub(StubReplica):
    """Answers by arithmetic, after a moment: so that a kill falls between batches."""

    def run(self, batch: Batch) -> BatchResult:
        time.sleep(0.15)
        return super().run(batch)


def main(arguments: Sequence[str]) -> None:
    """Runs a driver to its end."""
    source, output = arguments
    with (
        ray_cluster(2),
        ReplicaPool(
            {},
            PoolConfig(2, 2, 1, in_flight=2, device="cpu"),
            replica_class="tests.end_to_end.chaos_driver:SlowStub",
        ) as pool,
    ):
        pool.wait_for_minimum()
        commits = sum(1 for _ in drive(source, output, pool))
    sys.stdout.write(f"\n{commits}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
