"""The interface of a logits processor: one optional change to the logits of decode steps.

A processor has no state. What it needs of the requests are host arrays, one entry per row of a
call; what it keeps from step to step of a call is a device state. The state is made again for every
call from the cache and the host arrays, so that sequences join and leave between calls. The host
arrays follow from the parameters alone: the tokens of the last call may not be on the host yet.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Array, Float, Int

from actors.protocol.sampling import PARAMETERS, Sampling

Rows = Sequence[Sampling | None]  # parameters of the rows of a decode call; None: an unused row


def values_of(rows: Rows, name: str) -> list[Any]:
    """Returns a sampling parameter of every row; unused rows have its default."""
    default = PARAMETERS[name].default
    return [default if row is None else getattr(row, name) for row in rows]


class DecodeView(NamedTuple):
    """What the device knows of the rows of a decode call, before a step."""

    tokens: Int[Array, " B"]  # input of the step: the last token of each sequence
    start: Int[Array, " B"]  # tokens in the cache
    position: Int[Array, " B"]  # tokens generated
    pages: Int[Array, "B J"]
    cached_tokens: Int[Array, "P Z"]  # ids of the tokens in the cache


class LogitsProcessor(ABC):
    """One change to logits. Rows that do not use it keep every bit of theirs.

    The methods that take device arrays run inside `jax.shard_map`: a device has the columns of the
    vocabulary that it owns, U of V.
    """

    # sampling parameters it implements; decode is compiled with it if a request may set one
    parameters: ClassVar[tuple[str, ...]]

    @abstractmethod
    def host_arrays(self, rows: Rows) -> Any:
        """Returns a tree of NumPy arrays [B, ...] for the rows of a call."""

    @abstractmethod
    def start(self, arrays: Any, view: DecodeView, columns: int) -> Any:
        """Returns the state before the first step of a call; `columns` is U."""

    def observe(self, state: Any, view: DecodeView) -> Any:
        """Returns the state with the input tokens of the step."""
        return state

    @abstractmethod
    def apply(
        self, logits: Float[Array, "B U"], arrays: Any, state: Any, view: DecodeView
    ) -> Float[Array, "B U"]:
        """Returns the logits of the step, changed."""
