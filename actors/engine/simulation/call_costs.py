"""Seconds of one prefill, decode and score call on a device, from its tabulated kernel times.

The time of a kernel at a size between two tabulated ones is interpolated, linearly between the
logarithms. For another model, mesh or device, the part of the time beyond the kernels' launches
is scaled by the ratio of the floors. A kernel without any time takes its floor at the profile's
efficiency.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.engine.planning.device_profiles import (
    KERNELS,
    REFERENCE_SHARD,
    DeviceProfile,
    KernelTime,
    ModelShard,
    load_profile,
)
from actors.engine.simulation.floors import Number, Work, kernel_work

# What the seconds of a call are spent on.
LIMITS = ("weights", "kv_cache", "compute", "memory", "links", "launches", "host")
_WEIGHT_KERNELS = {
    "experts_gate_value",
    "experts_out",
    "attention_inputs",
    "attention_output",
    "vocabulary",
}
_LAYER_KERNELS = (
    "experts_gate_value",
    "experts_out",
    "attention_inputs",
    "attention_output",
    "norms",
    "routing",
    "combine",
)


@dataclass(frozen=True, slots=True)
class CallCost:
    """Seconds of calls, by what limits them."""

    seconds: Mapping[str, float]  # by the names of LIMITS

    @property
    def total_s(self) -> float:
        """Seconds in all."""
        return sum(self.seconds.values())

    def __add__(self, other: "CallCost") -> "CallCost":
        return CallCost({name: self.seconds[name] + other.seconds[name] for name in LIMITS})

    def __mul__(self, factor: Number) -> "CallCost":
        return CallCost({name: self.seconds[name] * factor for name in LIMITS})


NO_COST = CallCost(dict.fromkeys(LIMITS, 0.0))


@dataclass(slots=True)
class CallCosts:
    """Costs of the calls of one engine.

    Args:
        profile: the device.
        shard: sizes of the model's part on one device.
        layers: number of layers of the model.
        position: where between the lowest (0) and the highest (1) estimate the times lie.
        overlaps_calls: the host plans and reads calls while the devices run others, so that only
            what it takes longer than they is added.
    """

    profile: DeviceProfile
    shard: ModelShard
    layers: int
    position: Number = 0.5
    overlaps_calls: bool = False
    _tables: dict[str, "_Table"] = field(init=False)
    _computed: dict[tuple[str, Number, Number], CallCost] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._tables = _tables(self.profile, self.position)

    def prefill(self, positions: int, context: Number) -> CallCost:
        """Returns the cost of a prefill call.

        Args:
            positions: rows times chunk of one data shard, padding included.
            context: keys that a position sees on average.
        """
        layer = self._layer(positions) + self._kernel("attention_prefill", positions, context)
        return self._with_host(layer * self.layers, self._kernel("host_prefill", positions))

    def decode(
        self, rows: int, steps: int, sequences: int, context: Number, *, sorts: bool = False
    ) -> CallCost:
        """Returns the cost of a decode call.

        Args:
            rows: of one data shard, empty ones included.
            steps: tokens that the call generates for each sequence.
            sequences: rows in use, of one data shard.
            context: keys that a sequence sees on average.
            sorts: whether a sequence samples with a temperature.
        """
        sampling = "sampling_greedy"
        if sorts:
            sampling = "sampling_sorted"
        layer = self._layer(rows) + self._kernel("attention_decode", sequences, context)
        step = layer * self.layers + self._kernel("vocabulary", rows) + self._kernel(sampling, rows)
        return self._with_host(step * steps, self._kernel("host_decode", sequences * steps))

    def score(self, targets: int) -> CallCost:
        """Returns the cost of a score call over `targets` positions of one data shard."""
        return self._kernel("vocabulary", targets) + self._kernel("sampling_greedy", targets)

    def _with_host(self, device: CallCost, host: CallCost) -> CallCost:
        """Returns the cost of a call on the devices, and of the host where they wait for it."""
        if not self.overlaps_calls:
            return device + host
        exposed_s = max(0.0, host.total_s - device.total_s)
        return device + host * (exposed_s / host.total_s)

    def _layer(self, tokens: int) -> CallCost:
        """Returns the cost of a layer without its attention."""
        computed = self._computed.get(("layer", tokens, 0.0))
        if computed is not None:
            return computed
        layer = self._kernel("all_reduce", tokens) * 2
        for kernel in _LAYER_KERNELS:
            layer += self._kernel(kernel, tokens)
        self._computed["layer", tokens, 0.0] = layer
        return layer

    def _kernel(self, kernel: str, tokens: Number, context: Number = 0.0) -> CallCost:
        key = (kernel, tokens, context)
        computed = self._computed.get(key)
        if computed is None:
            computed = self._compute(kernel, tokens, context)
            self._computed[key] = computed
        return computed

    def _compute(self, kernel: str, tokens: Number, context: Number) -> CallCost:
        """Returns the cost of one run of a kernel."""
        seconds = dict.fromkeys(LIMITS, 0.0)
        if kernel == "all_reduce" and self.shard.devices == 1:
            return CallCost(seconds)
        work = kernel_work(kernel, self.shard, tokens, context)
        launches_s = KERNELS[kernel].launches * self.profile.launch_us * 1e-6
        table = self._tables.get(kernel)
        if table is None:
            busy_s = _roofline_s(work, self.profile)
        else:
            busy_s = table.busy_s(work.floor_s(self.profile), tokens, context)

        seconds["launches"] = launches_s
        seconds[_limit(kernel, work, self.profile)] += busy_s
        return CallCost(seconds)


def _limit(kernel: str, work: Work, profile: DeviceProfile) -> str:
    """Returns what limits a kernel beside its launches."""
    if kernel.startswith("host_"):
        return "host"
    if kernel == "all_reduce":
        return "links"
    if work.compute_s(profile) > work.memory_s(profile):
        return "compute"
    if kernel in _WEIGHT_KERNELS:
        return "weights"
    if kernel == "attention_decode":
        return "kv_cache"
    return "memory"


def _roofline_s(work: Work, profile: DeviceProfile) -> float:
    """Returns the seconds of a kernel without tabulated times."""
    memory_s = work.memory_s(profile) / profile.memory_efficiency
    compute_s = work.compute_s(profile) / profile.compute_efficiency
    link_s = work.link_bytes / profile.link_bytes_per_s
    host_s = work.host_tokens * profile.host_us_per_token * 1e-6
    return max(memory_s, compute_s) + link_s + host_s


@dataclass(frozen=True, slots=True)
class _Table:
    """Times of one kernel beyond its launches, at the sizes of the reference."""

    kernel: str
    source: DeviceProfile  # that the times belong to
    sizes: tuple[float, ...]  # logarithms of tokens, or of tokens times context
    busy: tuple[float, ...]  # logarithms of seconds

    def busy_s(self, floor_s: Number, tokens: Number, context: Number) -> float:
        """Returns the seconds of a kernel with this floor at a number of tokens."""
        size = math.log(tokens * max(context, 1.0))
        reference_s = self._reference_floor_s(tokens, context)
        if size <= self.sizes[0] or size >= self.sizes[-1]:
            # beyond the table: as efficient as at its end
            end = 0 if size <= self.sizes[0] else -1
            end_work = math.exp(self.sizes[end])
            end_tokens = end_work / max(context, 1.0) if context else end_work
            end_floor_s = self._reference_floor_s(end_tokens, context)
            return math.exp(self.busy[end]) * floor_s / end_floor_s

        above = bisect_left(self.sizes, size)
        below = above - 1
        share = (size - self.sizes[below]) / (self.sizes[above] - self.sizes[below])
        logarithm = self.busy[below] + share * (self.busy[above] - self.busy[below])
        return math.exp(logarithm) * floor_s / reference_s

    def _reference_floor_s(self, tokens: Number, context: Number) -> float:
        work = kernel_work(self.kernel, REFERENCE_SHARD, tokens, context)
        return work.floor_s(self.source)


def _tables(profile: DeviceProfile, position: Number) -> dict[str, _Table]:
    """Returns the tables of a profile, and those of the profile that stands in for the others."""
    tables: dict[str, _Table] = {}
    if profile.estimates_from is not None:
        tables = _tables(load_profile(profile.estimates_from), position)
    for kernel in KERNELS:
        times = profile.times_of(kernel)
        if times:
            tables[kernel] = _table(kernel, profile, times, position)
    return tables


def _table(
    kernel: str, profile: DeviceProfile, times: tuple[KernelTime, ...], position: Number
) -> _Table:
    launches_us = KERNELS[kernel].launches * profile.launch_us
    ordered = sorted(times, key=_size)
    sizes: list[float] = []
    busy: list[float] = []
    for time in ordered:
        total_us = time.low_us + position * (time.high_us - time.low_us)
        # a kernel that takes no longer than its launches still does its work
        busy_us = max(total_us - launches_us, 0.05 * total_us)
        sizes.append(math.log(_size(time)))
        busy.append(math.log(busy_us * 1e-6))
    return _Table(kernel, profile, tuple(sizes), tuple(busy))


def _size(time: KernelTime) -> int:
    return time.tokens * max(time.context, 1)
