"""What a layer asks of its platform: the experts' products, and attention over pages.

Types only. `choice.py` holds the implementations by platform: plain XLA for CPUs, Pallas kernels
for NVIDIA GPUs.
"""

from collections.abc import Callable
from typing import NamedTuple

from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt16

from actors.kernels.quantized import Params, Weight


class Placement(NamedTuple):
    """Where the tokens of a step lie; computed once and shared by all layers."""

    positions_BT: Int[Array, "B T"]  # of the new tokens in their sequences, consecutive
    # page each new token is written to; P (out of range) for padding, which is not written
    page_BT: Int[Array, "B T"]
    offset_BT: Int[Array, "B T"]  # row within that page
    pages_BJ: Int[Array, "B J"]  # page table, safe to gather with
    # cache positions in use once the new tokens are written; 0 for a sequence without any
    length_B: Int[Array, " B"]
    # cache positions that hold a key some query may see, all below `length_B`
    live_BS: Bool[Array, "B S"]
    visible_BTS: Bool[Array, "B T S"]  # … and that this query may see: those up to its own position


# Keys or values of one layer. Bfloat16 may be stored as its bits: XLA for CPUs widens whole
# bfloat16 arrays to float32 and back to write or clear some of their rows, and leaves integers
# alone.
Pages = Float[Array, "P Z K C"] | UInt16[Array, "P Z K C"]

Experts = tuple[Weight, Weight, Weight]  # gate, value and output projection, each (E, K, N)

# (x [N, D], chosen [N, X], experts) -> rows [A, D] of every (token, choice) in some order, and each
# one's row [N, X]. A choice >= E is of padding: it costs nothing, and its row may hold anything.
GroupedFfn = Callable[
    [Float[Array, "N D"], Int[Array, "N X"], Experts], tuple[Float[Array, "A D"], Int[Array, "N X"]]
]

# (q [B, T, H, C], keys [P, Z, K, C], values [P, Z, K, C], placement, multiplier) -> [B, T, H, C]:
# softmax(30 tanh(q·k x multiplier / 30)) · v over the visible positions, zero for a query that sees
# none. Query head j uses key/value head j // (H / K). Whatever unused rows of pages hold, NaN
# included, does not reach the result.
Attend = Callable[
    [Float[Array, "B T H C"], Pages, Pages, Placement, float | int], Float[Array, "B T H C"]
]


# (int8 parameters, type of activations) -> the same, stored as both read them; takes the parameters
# over.
Arrange = Callable[[Params, DTypeLike], dict[str, dict[str, Weight]]]


class Kernels(NamedTuple):
    """One platform's implementation of both, and how they want int8 parameters and the cache stored."""

    grouped_ffn: GroupedFfn
    attend: Attend
    arrange: Arrange
    cache_dtype: Callable[[DTypeLike], DTypeLike]  # type of activations -> type of pages
    # a call takes as long as its page table is wide, not as its sequences are long
    reads_whole_table: bool
