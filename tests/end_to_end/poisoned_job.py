"""The main job, but a prompt that begins with POISON kills its replica: `python -m tests.end_to_end.poisoned_job FLAGS`."""

import functools
import os
import signal
import sys

import actors.pool.replica_pool
from actors.protocol.messages import Batch, BatchResult
from actors.replica import Replica
from jobs import score_dataset

POISON = [7, 8, 7, 8, 7]


class PoisonedReplica(Replica):
    """The real one, until its row comes."""

    def run(self, batch: Batch) -> BatchResult:
        if any(request.prompt_ids[: len(POISON)].tolist() == POISON for request in batch.requests):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(batch)


if __name__ == "__main__":
    poisoned = functools.partial(
        actors.pool.replica_pool.ReplicaPool,
        replica_class=f"tests.end_to_end.poisoned_job:{PoisonedReplica.__name__}",
    )
    actors.pool.replica_pool.ReplicaPool = poisoned  # type: ignore[misc,assignment]
    sys.exit(score_dataset.main(sys.argv[1:]))
