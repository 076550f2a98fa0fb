"""affinity.py: a batch goes to the replica that owns its prefix, and none waits for ever."""

from hypothesis import given
from hypothesis import strategies as st

from actors.protocol.messages import Batch, Request, RowRef, token_ids
from pipeline.dispatch.affinity import OVERDUE_FACTOR, PREFIXES_PER_REPLICA, WaitingBatches


def batch(row: int, prefix: str | None) -> Batch:
    request = Request(RowRef(0, row), token_ids([1]))
    return Batch((request,), prefix.encode() if prefix else None)


def waiting(*prefixes: str | None) -> WaitingBatches:
    queue = WaitingBatches()
    for row, prefix in enumerate(prefixes):
        queue.add(batch(row, prefix))
    return queue


def take(queue: WaitingBatches, replica: str, limit: int = 8, steal: bool = False) -> int | None:
    taken = queue.take(replica, limit, steal=steal)
    return None if taken is None else taken.requests[0].ref.row


def test_prefix_stays_with_its_replica() -> None:
    queue = waiting("a", "a", "b", "a", None, "b")
    assert [take(queue, name) for name in ("one", "two", "one", "two", "one", "two")] == [
        0,
        2,
        1,
        5,
        3,
        4,
    ]
    assert len(queue) == 0


def test_owned_batch_waits_until_limit_or_steal() -> None:
    queue = waiting("a", "a", "a")
    assert take(queue, "one") == 0
    assert take(queue, "two") is None
    assert take(queue, "two", limit=2) == 1, "two wait and two may: an idle replica takes one"
    assert take(queue, "three") is None
    assert take(queue, "one") == 2, "both hold it now"
    queue.add(batch(3, "a"))
    assert take(queue, "three") is None
    assert take(queue, "three", steal=True) == 3
    assert take(queue, "three", steal=True) is None


def test_prefixes_of_lost_replica_are_unassigned() -> None:
    queue = waiting("a", "a", "b")
    assert take(queue, "one") == 0
    queue.forget("one")
    assert [take(queue, "two"), take(queue, "three")] == [1, 2]
    queue.forget("unheard of")


def test_replica_owns_its_latest_prefixes_only() -> None:
    queue = WaitingBatches()
    for number in range(PREFIXES_PER_REPLICA + 1):
        queue.add(batch(number, f"prefix {number}"))
        assert take(queue, "one") == number
    for number in (0, 1):
        queue.add(batch(number, f"prefix {number}"))
    assert take(queue, "two") == 0, "the first prefix was evicted"
    assert take(queue, "two") is None


def test_overtaken_batch_is_placed_when_overdue() -> None:
    queue = waiting("a", "rare")
    assert [take(queue, name) for name in ("one", "two")] == [0, 1]
    queue.add(batch(99, "rare"))
    for number in range(100):
        queue.add(batch(number, "a"))
        taken = take(queue, "one", limit=3)
        if taken == 99:
            assert number == OVERDUE_FACTOR * 3 + 1
            return
    raise AssertionError("the rare one never came")


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "take", "lose"]), st.integers(0, 4), st.booleans()),
        max_size=120,
    ),
    st.integers(1, 6),
)
def test_batches_are_taken_exactly_once(moves: list[tuple[str, int, bool]], limit: int) -> None:
    queue, added, taken = WaitingBatches(), 0, []
    for move, number, flag in moves:
        if move == "add":
            queue.add(batch(added, f"prefix {number}" if number else None))
            added += 1
        elif move == "take":
            taken.append(take(queue, f"replica {number}", limit, flag))
        else:
            queue.forget(f"replica {number}")
        done = [number for number in taken if number is not None]
        assert len(queue) == added - len(done)
    while len(queue):
        taken.append(take(queue, "last", limit, True))
        assert taken[-1] is not None
    assert sorted(number for number in taken if number is not None) == list(range(added))
