"""Compares the kernels of a GPU with plain XLA, on the same numbers, and times them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from actors.kernels.interface import Kernels
from actors.kernels.xla.platform import XLA
from jobs.checks.ceilings import Ceilings
from jobs.checks.device_time import DeviceTime, chained_time, queued_time
from jobs.checks.gpu_cases import Case, Sizes, cases
from jobs.checks.gpu_trace import GpuTrace, trace_gpu

# bfloat16: two roundings of numbers of magnitude one. float32: sums of up to six thousand terms in
# another order.
TOLERANCES = {"bfloat16": 0.03, "float32": 3e-4}

LISTED_KERNELS = 3  # of the experts, in a line: two products and the tiles


@dataclass(frozen=True)
class Result:
    """The result of a case.

    `difference` is the largest absolute one from plain XLA, None where there is nothing to compare.
    Times are None where nothing is timed, the trace is None without a GPU.
    """

    case: Case
    difference: float | None
    time: DeviceTime | None = None
    xla_time: DeviceTime | None = None
    trace: GpuTrace | None = None

    @property
    def is_right(self) -> bool:
        """Whether the difference is within the tolerance; NaN is not."""
        return self.difference is None or self.difference <= TOLERANCES[self.case.dtype]

    def line(self, ceilings: Ceilings | None) -> str:
        """Returns the result as a line of text; with ceilings, relative to them."""
        line = f"{self.case.name:<42} {self.case.dtype:<9}"
        if self.difference is not None:
            tolerance = TOLERANCES[self.case.dtype]
            line += f" differs by {self.difference:.1e} of {tolerance:.0e}"
        else:
            line += " " * 27
        if self.time is not None and ceilings is not None:
            share = self.floor_s(ceilings) / self.time.shortest_s
            line += f" {self.time.shortest_s * 1e6:10,.1f} us, {share:6.1%} of the roof"
        if self.xla_time is not None:
            line += f", plain XLA {self.xla_time.shortest_s * 1e6:10,.1f} us"
        if self.case.kernel == "experts" and self.trace is not None:
            for kernel in self.trace.kernels[:LISTED_KERNELS]:
                line += f", {kernel.name} {kernel.seconds * 1e6:,.1f} us"
        if not self.is_right:
            line += "   WRONG"
        return line.rstrip()

    def floor_s(self, ceilings: Ceilings) -> float:
        """Returns the least seconds that a run can take on this machine."""
        read_s = self.case.min_bytes / ceilings.read_bytes_per_s
        return max(read_s, self.case.flops / ceilings.product_flops_per_s)


@dataclass(frozen=True)
class Selection:
    """Which cases to run; None: all."""

    kernel: str | None = None
    tokens: int | None = None

    def includes(self, case: Case) -> bool:
        """Returns whether a case is selected."""
        has_kernel = self.kernel is None or case.kernel == self.kernel
        return has_kernel and (self.tokens is None or case.tokens == self.tokens)


def check_cases(
    sizes: Sizes, kernels: Kernels, *, is_timed: bool, selection: Selection
) -> Iterator[Result]:
    """Yields the result of every selected case."""
    for case in cases(sizes):
        if not selection.includes(case) or not (case.is_compared or is_timed):
            continue
        yield _check(case, kernels, is_timed=is_timed)


def _check(case: Case, kernels: Kernels, *, is_timed: bool) -> Result:
    function = case.function(kernels)
    run_kernels = partial(jax.jit(function), *case.arguments)
    run_xla = partial(jax.jit(case.function(XLA.kernels)), *case.arguments)

    difference = None
    if case.is_compared:
        differences = jnp.abs(run_kernels().astype(jnp.float32) - run_xla().astype(jnp.float32))
        difference = float(jnp.max(differences))
    if not is_timed:
        return Result(case, difference)

    xla_time = None
    if case.is_compared:
        xla_time = queued_time(run_xla)
    jax.block_until_ready(run_kernels())
    return Result(
        case,
        difference,
        time=chained_time(function, case.arguments),
        xla_time=xla_time,
        trace=trace_gpu(run_kernels),
    )
