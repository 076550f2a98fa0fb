"""Values between two processes, and calls over a pair of sockets."""

import math
import os
import socket
import threading
from collections import Counter, namedtuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evals.execution import remote_calls
from pipeline.evals.execution.remote_calls import OpaqueValue, RemoteFunction, decode, encode

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
)
HASHABLE = SCALARS | st.tuples(SCALARS, SCALARS) | st.frozensets(SCALARS, max_size=2)
LEAVES = HASHABLE | st.sets(HASHABLE, max_size=2)
VALUES = st.lists(LEAVES, max_size=3) | st.dictionaries(HASHABLE, LEAVES, max_size=2) | LEAVES


@given(VALUES)
def test_value_arrives_as_it_was_sent(value: Any) -> None:
    arrived = decode(encode(value))
    assert arrived == value
    assert type(arrived) is type(value)


def test_other_types_arrive_as_plain_or_opaque_values() -> None:
    point = namedtuple("point", "x")(1)
    values = [np.float64(0.5), np.int64(3), np.bool_(True), Counter("aa"), point]
    assert [decode(encode(value)) for value in values] == [0.5, 3, True, {"a": 2}, (1,)]
    assert math.isnan(decode(encode(math.nan)))
    opaque = decode(encode(object()))
    assert isinstance(opaque, OpaqueValue)
    assert opaque != decode(encode(object()))
    assert repr(opaque) == "<a value of type object>"


def serving(descriptor: int) -> None:
    def fail() -> None:
        raise LookupError("nothing there")

    def fail_oddly() -> None:
        raise type("OddError", (Exception,), {})("odd")

    functions = {"power": pow, "fail": fail, "fail_oddly": fail_oddly}
    with pytest.raises(EOFError):
        remote_calls.serve_calls(descriptor, functions)


def test_calls_return_results_and_raise_errors() -> None:
    near, far = socket.socketpair()
    thread = threading.Thread(target=serving, args=(far.fileno(),))
    thread.start()
    assert remote_calls.receive(near.fileno()) == ["ready", None]
    assert RemoteFunction(near.fileno(), "power")(2, exp=5) == 32
    with pytest.raises(LookupError, match="nothing there"):
        RemoteFunction(near.fileno(), "fail")()
    with pytest.raises(RuntimeError, match="OddError: odd"):
        RemoteFunction(near.fileno(), "fail_oddly")()
    with pytest.raises(KeyError):
        RemoteFunction(near.fileno(), "missing")()
    near.shutdown(socket.SHUT_RDWR)
    thread.join()
    near.close()
    far.close()


def test_long_messages_are_refused_on_both_sides() -> None:
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(ValueError, match="at most"):
            remote_calls.send(near.fileno(), "x" * remote_calls.MAX_MESSAGE_BYTES)
        os.write(near.fileno(), remote_calls.LENGTH.pack(2**40))
        with pytest.raises(ValueError, match="at most"):
            remote_calls.receive(far.fileno())
