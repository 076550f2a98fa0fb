import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, RayTaskError

from actors.pool.remote import blame, driver_is_dead, sentence

PREAMBLE = (
    "The actor died unexpectedly before finishing this task.\n"
    "\tclass_name: RemoteReplica\n\tactor_id: 51c5\n\tpid: 7\n"
)
WORKER = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker "
    "exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: "
    "(1) the OOM killer"
)
NODE = (
    "The actor died because its node has died. Node Id: 4d10\n"
    "\tthe actor's node was terminated {}: {}"
)
UNEXPECTED = NODE.format("unexpectedly", "health check failed due to missing too many heartbeats")
EXPECTED = NODE.format("expectedly", "received SIGTERM")


def died(words: str, *, preempted: bool = False) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg, error._preempted = PREAMBLE + words, preempted
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (died(WORKER), "replica"),
        (died(UNEXPECTED), "node"),
        (died(EXPECTED), "nobody"),
        (died(UNEXPECTED, preempted=True), "nobody"),
        (NodeDiedError("gone"), "node"),
        (ActorUnavailableError("away", None), "node"),
        (RuntimeError("out of memory"), "replica"),
        (RayTaskError("run", "traceback", RuntimeError("its node has died")), "replica"),
    ],
)
def test_loss_is_blamed_on_row_node_or_nobody(error: BaseException, expected: str) -> None:
    assert blame(error) == expected


def test_sentence_is_one_line_that_starts_with_the_cause() -> None:
    assert sentence(died(WORKER)) == (
        "its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
        "unexpectedly exits with a "
        "connection error code 2. End of file."
    )
    assert sentence(died(EXPECTED)).startswith(
        "its node has died. Node Id: 4d10 the actor's node was terminated expectedly"
    )
    assert sentence(RayTaskError("run", "traceback", ValueError("bad"))) == "ValueError: bad"
    assert sentence(OSError("disk")) == "OSError: disk"


def test_driver_is_dead_when_the_owner_of_an_actor_died() -> None:
    owner = (
        "The actor is dead because its owner has died. "
        "Owner Id: 01000000ffff Owner worker exit type: SYSTEM_ERROR"
    )
    assert driver_is_dead(died(owner))
    assert not driver_is_dead(died(WORKER))
    assert not driver_is_dead(died(UNEXPECTED))
    assert not driver_is_dead(ActorUnavailableError("its owner has died", None))
