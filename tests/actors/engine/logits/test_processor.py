"""The interface of logits processors: values of rows, and what it requires of a processor."""

import inspect
from typing import Any

import jax.numpy as jnp
import pytest

from actors.engine.logits.chain import PROCESSORS
from actors.engine.logits.processor import (
    DecodeView,
    LogitsProcessor,
    values_of,
)
from actors.protocol.sampling import PARAMETERS, Sampling


def test_values_of_unused_rows_are_the_default() -> None:
    rows = [Sampling(9, repetition_penalty=1.5), None]
    default = PARAMETERS["repetition_penalty"].default
    assert default != 1.5
    assert values_of(rows, "repetition_penalty") == [1.5, default]


def test_values_of_an_unknown_parameter_raise() -> None:
    with pytest.raises(KeyError):
        values_of([None], "no_such_parameter")


def test_processor_must_define_its_arrays_state_and_change() -> None:
    assert inspect.isabstract(LogitsProcessor)
    assert LogitsProcessor.__abstractmethods__ == {"host_arrays", "start", "apply"}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_processors_hold_no_state(processor: LogitsProcessor) -> None:
    """One instance serves all engines of a process."""
    assert not vars(processor)


def test_observe_keeps_the_state_by_default() -> None:
    class Scaled(LogitsProcessor):
        parameters = ("temperature",)

        def host_arrays(self, rows: Any) -> Any:
            return None

        def start(self, arrays: Any, view: Any, columns: int) -> Any:
            return None

        def apply(self, logits: Any, arrays: Any, state: Any, view: Any) -> Any:
            return logits * 2

    row = jnp.zeros(1, jnp.int32)
    table = jnp.zeros((1, 1), jnp.int32)
    view = DecodeView(row, row, row, table, table)
    state = object()
    assert Scaled().observe(state, view) is state
