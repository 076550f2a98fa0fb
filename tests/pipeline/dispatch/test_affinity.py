"""affinity.py: batches of a family go where the family ran before, and nothing waits for ever."""

from hypothesis import given
from hypothesis import strategies as st

from actors.protocol.messages import Batch
from pipeline.dispatch.affinity import PATIENCE, PREFIXES_HELD, Waiting


def batch(number: int, family: str | None) -> Batch:
    return Batch(number, (), family.encode() if family else None)


def waiting(*families: str | None) -> Waiting:
    made = Waiting()
    for number, family in enumerate(families):
        made.add(batch(number, family))
    return made


def take(queue: Waiting, replica: str, limit: int = 8, steal: bool = False) -> int | None:
    taken = queue.take(replica, limit, steal=steal)
    return None if taken is None else taken.number


def test_a_family_stays_with_its_replica_and_others_take_what_is_new() -> None:
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


def test_what_another_replica_holds_waits_for_it_until_too_many_wait_or_nothing_else_comes() -> (
    None
):
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


def test_families_of_a_lost_replica_are_anyones() -> None:
    queue = waiting("a", "a", "b")
    assert take(queue, "one") == 0
    queue.forget("one")
    assert [take(queue, "two"), take(queue, "three")] == [1, 2]
    queue.forget("unheard of")


def test_a_replica_holds_its_latest_families_only() -> None:
    queue = Waiting()
    for number in range(PREFIXES_HELD + 1):
        queue.add(batch(number, f"family {number}"))
        assert take(queue, "one") == number
    for number in (0, 1):
        queue.add(batch(number, f"family {number}"))
    assert take(queue, "two") == 0, "the first family was crowded out"
    assert take(queue, "two") is None


def test_nothing_is_passed_over_for_ever() -> None:
    queue = waiting("a", "rare")
    assert [take(queue, name) for name in ("one", "two")] == [0, 1]
    queue.add(batch(99, "rare"))
    for number in range(100):
        queue.add(batch(number, "a"))
        taken = take(queue, "one", limit=3)
        if taken == 99:
            assert number == PATIENCE * 3 + 1
            return
    raise AssertionError("the rare one never came")


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "take", "lose"]), st.integers(0, 4), st.booleans()),
        max_size=120,
    ),
    st.integers(1, 6),
)
def test_every_batch_is_taken_exactly_once(moves: list[tuple[str, int, bool]], limit: int) -> None:
    queue, added, taken = Waiting(), 0, []
    for move, number, flag in moves:
        if move == "add":
            queue.add(batch(added, f"family {number}" if number else None))
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
