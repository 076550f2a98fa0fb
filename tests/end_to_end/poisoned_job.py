"""The main job, but a prompt that begins with POISON kills its replica.

python -m tests.end_to_end.poisoned_job FLAGS
"""

import os
import signal
import sys

from actors.protocol.messages import Batch, BatchResult
from actors.replica import Replica
from jobs import score_dataset
from jobs.run.backend import RayBackend

POISON = [7, 8, 7, 8, 7]


class PoisonedReplica(Replica):
    """The real one, until its row comes."""

    def run(self, batch: Batch) -> BatchResult:
        for request in batch.requests:
            if request.prompt_ids[: len(POISON)].tolist() == POISON:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().run(batch)


if __name__ == "__main__":
    poisoned = RayBackend(replica_class=f"tests.end_to_end.poisoned_job:{PoisonedReplica.__name__}")
    sys.exit(score_dataset.main(sys.argv[1:], poisoned))
