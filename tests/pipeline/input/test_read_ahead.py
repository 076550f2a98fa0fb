from collections.abc import Callable
from threading import Barrier

import pytest

from pipeline.input.read_ahead import read_ahead


def test_results_are_in_the_order_of_the_items() -> None:
    assert list(read_ahead(str, range(50), at_once=4)) == [str(number) for number in range(50)]
    assert list(read_ahead(str, [])) == []


def test_calls_run_at_the_same_time() -> None:
    barrier = Barrier(3)

    def wait(item: int) -> int:
        barrier.wait(timeout=30)
        return item

    assert list(read_ahead(wait, range(9), at_once=3)) == list(range(9))


def test_consumer_that_stops_leaves_the_rest_alone() -> None:
    called: list[int] = []
    results = read_ahead(called.append, range(100), at_once=4)
    next(results)
    results.close()  # type: ignore[attr-defined]  # a generator
    assert set(called) <= set(range(4))


def test_error_is_raised_in_place_of_the_result() -> None:
    def check(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    call: Callable[[int], int] = check
    results = read_ahead(call, range(9))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
