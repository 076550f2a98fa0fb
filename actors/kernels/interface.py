"""The interface of a platform: the kernels of a layer, and the layouts of weights and cache."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt16

from actors.kernels.cpu.layout import PackedExperts, PackedMatrix, PackedTable
from actors.kernels.gpu.layout import TransposedExperts
from actors.kernels.quantized import LoadedParams, MatrixWeight, QuantizedWeight
from actors.kernels.xla.layout import DenseExperts, dequantize_params


class Placement(NamedTuple):
    """Positions of the tokens of a step in the cache; computed once and shared by all layers."""

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

Weight = Float[Array, "..."] | QuantizedWeight | DenseExperts | TransposedExperts | PackedExperts
Param = Weight | PackedMatrix | PackedTable
Params = Mapping[str, Mapping[str, Param]]  # Haiku module -> parameter name -> weight
Experts = tuple[Weight, Weight, Weight]  # gate, value and output projection, each (E, K, N)

Projection = MatrixWeight | PackedMatrix
Projections = tuple[Projection, Projection, Projection]  # of query, key and value, [D, N]

# (x [B, T, D], weights, keys, values, placement) -> queries [B, T, H, C], and the pages with new
# keys and values. Products are summed in float32 and rounded to the type of x; queries and keys are
# rotated by their positions in float32, dimension i with i + C/2. Rows of padding are not written.
# The pages are taken over.
AttentionInputs = Callable[
    [Float[Array, "B T D"], Projections, Pages, Pages, Placement],
    tuple[Float[Array, "B T H C"], Pages, Pages],
]

# (x [B, T, K], weight [K, N]) -> x · weight [B, T, N], summed in float32, in the type of x.
Project = Callable[[Float[Array, "B T K"], MatrixWeight], Float[Array, "B T N"]]

# (x [N, D], router's weights [D, E] float32, real [N], X) -> gates [N, X] float32 and ids [N, X] of
# the X experts of each token, best first; ties go to the lower id. Gates are the chosen ones of a
# softmax over all experts and are not renormalised: they sum to less than one. Where `real` is
# false (padding) the ids are E. Float32 throughout.
Route = Callable[
    [Float[Array, "N D"], Float[Array, "D E"], Bool[Array, " N"], int],
    tuple[Float[Array, "N X"], Int[Array, "N X"]],
]

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

# (h [B, T, D], update [B, T, D], update's scale [D] float32, scale [D] float32) -> the residual
# stream h + norm(update) [B, T, D], and the norm of that sum [B, T, D], both in the type of h.
# Norms are float32 inside and rounded to that type; the sum is rounded before its norm.
AddAndNorm = Callable[
    [Float[Array, "B T D"], Float[Array, "B T D"], Float[Array, " D"], Float[Array, " D"]],
    tuple[Float[Array, "B T D"], Float[Array, "B T D"]],
]

# Type of activations -> options of XLA's compiler by name; none: XLA's defaults.
CompilerOptions = Callable[[DTypeLike], dict[str, str]]

# (int8 parameters, type of activations) -> the same, in the layout that the kernels read; takes the
# parameters over.
PackForDevice = Callable[[LoadedParams, DTypeLike], Params]


def default_compiler_options(_dtype: DTypeLike) -> dict[str, str]:
    """Returns no option."""
    return {}


class Kernels(NamedTuple):
    """One platform's implementation of the parts of a layer."""

    route: Route
    grouped_ffn: GroupedFfn
    attend: Attend
    attention_inputs: AttentionInputs
    project: Project
    add_and_norm: AddAndNorm

    @classmethod
    def jitted(
        cls,
        route: Route,
        grouped_ffn: GroupedFfn,
        attend: Attend,
        attention_inputs: AttentionInputs,
        project: Project,
        add_and_norm: AddAndNorm,
    ) -> "Kernels":
        """Returns kernels that are traced and lowered once for all layers of a program.

        Their shapes are the same in all layers, and XLA inlines the calls. Numbers of the model are
        static: the chosen experts of `route`, the multiplier of `attend`.
        """
        return cls(
            jax.jit(route, static_argnums=3),
            jax.jit(grouped_ffn),
            jax.jit(attend, static_argnums=4),
            jax.jit(attention_inputs),
            jax.jit(project),
            jax.jit(add_and_norm),
        )


@dataclass(frozen=True)
class Platform:
    """A kind of device: its kernels, and the layouts of weights and cache that they read."""

    name: str
    kernels: Kernels
    pack_for_device: PackForDevice
    cache_dtype: Callable[[DTypeLike], DTypeLike]  # type of activations -> type of pages
    # a call takes as long as its page table is wide, not as its sequences are long
    reads_whole_table: bool
    compiler_options: CompilerOptions = default_compiler_options
    # programs of all sizes are compiled while weights load, not when a call first needs one
    compiles_before_loading: bool = False
    # the engine dispatches a call before it reads the results of the last one
    overlaps_calls: bool = False
    # options beside these with which one program rounds alike wherever it was compiled
    deterministic_options: tuple[tuple[str, str], ...] = ()
    # weights "auto" are dense, as there is no kernel that reads int8
    dense_by_default: bool = False

    def deterministic(self) -> "Platform":
        """Returns the platform with programs that round alike wherever they were compiled."""

        def options(dtype: DTypeLike) -> dict[str, str]:
            return self.compiler_options(dtype) | dict(self.deterministic_options)

        return replace(self, compiler_options=options)

    def is_dense(self, weights: str) -> bool:
        """Returns whether `weights` ("auto", "int8" or "dense") means dense arrays here."""
        return weights == "dense" or (weights == "auto" and self.dense_by_default)

    def prepare(self, params: LoadedParams, dtype: DTypeLike, *, dense: bool) -> Params:
        """Returns int8 parameters as they are computed with: dense in `dtype`, or packed int8.

        Takes the parameters over, as `pack_for_device` does.
        """
        if dense:
            return dequantize_params(params, dtype)
        return self.pack_for_device(params, dtype)
