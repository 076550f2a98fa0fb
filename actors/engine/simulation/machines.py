"""A workload and a kind of machine → whether it fits, the best mesh, hours, speed and cost.

The rows of a workload are a sample of the rows of a run. The sample is simulated whole, and its
first half: the difference is the time of further rows without the start and the tail of a run. So
ten million rows take as long to estimate as a thousand.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace
from itertools import chain

from actors.engine.config import EngineConfig
from actors.engine.planning.device_profiles import DeviceProfile
from actors.engine.planning.sizes import (
    Devices,
    SizeFlags,
    affordable_tokens,
    cache_tokens,
    engine_sizes,
)
from actors.engine.simulation.run_times import (
    CallSpeeds,
    Device,
    RunTimes,
    call_speeds,
    run_times,
)
from actors.engine.simulation.schedule import (
    CallPolicy,
    CompletionTokens,
    Schedule,
    call_policy,
    longest_completion,
    simulate,
)
from actors.model import arithmetic
from actors.model.config import ModelConfig, parameter_shapes
from actors.protocol.messages import Request

# Of a workload at most: four rows for each of the most slots that a run chooses.
SAMPLED_ROWS = 2048
SAMPLED_TOKENS = 1_000_000
POSITIONS = (0.0, 0.5, 1.0)  # of times in their ranges: lowest, expected, highest


@dataclass(frozen=True, slots=True)
class Workload:
    """A sample of the requests of a run, in batches as replicas receive them."""

    batches: Items[Items[Request]]
    scale: float  # requests of the run for one of the sample
    batches_in_flight: int | None = None  # on a replica; None: all
    completion_tokens: CompletionTokens = longest_completion

    @property
    def requests(self) -> list[Request]:
        """All requests, in order."""
        return list(chain.from_iterable(self.batches))

    @property
    def tokens(self) -> int:
        """Tokens that the requests can grow to in all."""
        return sum(request.longest for request in self.requests)

    def first_half(self) -> "Workload":
        """Returns the first half of the batches."""
        return replace(self, batches=self.batches[: len(self.batches) // 2])


@dataclass(frozen=True, slots=True)
class Layout:
    """How the replicas of one machine are laid out."""

    model_shards: int  # devices of one replica
    replicas: int  # of the machine
    slots: int  # of a replica
    prefill_tokens: int
    decode_steps: int
    weight_bytes: int  # on one device
    cache_tokens: int  # of one replica

    @property
    def mesh(self) -> str:
        """The mesh of one replica, as --mesh takes it."""
        return f"1x{self.model_shards}"


@dataclass(frozen=True, slots=True)
class StartUp:
    """Seconds of a machine before its replicas compute, each as lowest and highest.

    Programs compile while weights load.
    """

    boot_s: tuple[float, float]
    load_s: tuple[float, float]  # of the weights
    compile_s: tuple[float, float]  # with and without a cache of programs

    @property
    def after_load_s(self) -> tuple[float, float]:
        """Seconds from the weights until all programs are there: lowest and highest."""
        low = max(0.0, self.compile_s[0] - self.load_s[1])
        high = max(0.0, self.compile_s[1] - self.load_s[0])
        return low, high

    @property
    def total_s(self) -> tuple[float, float, float]:
        """All of it: lowest, expected, highest."""
        low = self.boot_s[0] + max(self.load_s[0], self.compile_s[0])
        high = self.boot_s[1] + max(self.load_s[1], self.compile_s[1])
        return low, (low + high) / 2, high


@dataclass(frozen=True, slots=True)
class MachineEstimate:
    """Time and cost of a run on machines of one kind that share its rows.

    Seconds of prefill, decode and tail are those of each machine.
    """

    profile: DeviceProfile
    layout: Layout
    machines: float  # that share the rows
    start_up: StartUp
    prefill_s: float
    decode_s: float
    tail_s: float
    hours: tuple[float, float, float]  # until the end, start-up included: lowest, expected, highest
    prompt_tokens: float
    generated_tokens: float
    mbu: float
    mfu: float
    roof_share: float
    idle_slot_share: float
    limits: Mapping[str, float]  # shares of the time, the largest first
    speeds: CallSpeeds  # of each replica

    @property
    def busy_s(self) -> float:
        """Seconds of prefill and decode."""
        return self.prefill_s + self.decode_s

    @property
    def tokens_per_s(self) -> float:
        """Prompt and generated tokens of all machines per second of prefill and decode."""
        return (self.prompt_tokens + self.generated_tokens) / self.busy_s

    @property
    def generated_per_s(self) -> float:
        """Generated tokens of all machines per second of prefill and decode."""
        return self.generated_tokens / self.busy_s

    @property
    def machine_hours(self) -> tuple[float, float, float]:
        """Hours of all machines together: lowest, expected, highest."""
        low, expected, high = self.hours
        return low * self.machines, expected * self.machines, high * self.machines

    @property
    def cost(self) -> tuple[float, float]:
        """Lowest and highest cost of the run, in the currency of the price."""
        low_price, high_price = self.profile.machine_hour_usd
        low_hours, _, high_hours = self.machine_hours
        return low_hours * low_price, high_hours * high_price

    @property
    def cost_per_million_tokens(self) -> tuple[float, float]:
        """Lowest and highest cost of a million prompt and generated tokens."""
        millions = (self.prompt_tokens + self.generated_tokens) / 1e6
        low, high = self.cost
        return low / millions, high / millions

    @property
    def binding_limit(self) -> str:
        """What takes the largest share of the time."""
        return next(iter(self.limits))


@dataclass(frozen=True, slots=True)
class DoesNotFit:
    """A kind of machine that cannot run a model."""

    profile: DeviceProfile
    reason: str


@dataclass(slots=True)
class MachineEstimates:
    """Estimates of one workload, for several kinds of machines.

    Args:
        model: the model.
        engine: how engines are sized; slots and prefill tokens are those of the layout.
        workload: the sample.
        flags: sizes that are set; the others are chosen as a run chooses them.
        request_tokens: tokens that a request takes in the cache at most, on average.
        itemsize: bytes of a number in the KV cache.
        on_gpus: whether slots and calls are those of GPUs.
        policy: how calls are made; None: as on these devices.
        decode_steps: tokens of a sequence in one decode call; None: as a run chooses it.
    """

    model: ModelConfig
    engine: EngineConfig
    workload: Workload
    flags: SizeFlags
    request_tokens: float
    itemsize: int = 2
    on_gpus: bool = True
    policy: CallPolicy | None = None
    decode_steps: int | None = None
    _schedules: dict[tuple[int, int, int], tuple[Schedule, Schedule]] = field(
        init=False, default_factory=dict
    )

    def estimate(
        self,
        profile: DeviceProfile,
        model_shards: Items[int] | None = None,
        machines: float = 1.0,
    ) -> MachineEstimate | DoesNotFit:
        """Returns the estimate for the layout with the fewest hours.

        Args:
            profile: the devices of the machine.
            model_shards: devices of a replica to choose from; None: all that divide the machine.
            machines: that share the rows; a part of one, where the replicas do not fill it.
        """
        if model_shards is None:
            model_shards = divisors(profile.devices_per_machine)
        layouts = list(self._layouts(profile, model_shards))
        if not layouts:
            return DoesNotFit(profile, self._shortage(profile, model_shards))
        estimates = [self._estimate(profile, layout, machines) for layout in layouts]
        return min(estimates, key=lambda estimate: estimate.hours[1])

    def _layouts(self, profile: DeviceProfile, model_shards: Items[int]) -> Iterator[Layout]:
        """Yields the layouts that fit the memory of a device."""
        for shards in model_shards:
            if not _divides(self.model, shards):
                continue
            devices = Devices(
                data_shards=1,
                model_shards=shards,
                on_gpus=self.on_gpus,
                memory_bytes=profile.memory_bytes,
            )
            sizes = engine_sizes(
                self.model, devices, self.itemsize, self.flags, self.request_tokens
            )
            engine = replace(self.engine, slots=sizes.slots, prefill_tokens=sizes.prefill_tokens)
            affordable = affordable_tokens(self.model, devices, self.itemsize)
            tokens = cache_tokens(engine, 1, affordable)
            if tokens >= engine.max_len:
                yield Layout(
                    model_shards=shards,
                    replicas=max(1, profile.devices_per_machine // shards),
                    slots=sizes.slots,
                    prefill_tokens=sizes.prefill_tokens,
                    decode_steps=self.decode_steps or sizes.decode_steps,
                    weight_bytes=arithmetic.device_weight_bytes(self.model, shards),
                    cache_tokens=tokens,
                )

    def _shortage(self, profile: DeviceProfile, model_shards: Items[int]) -> str:
        usable = [shards for shards in model_shards if _divides(self.model, shards)]
        if not usable:
            return f"the model does not split over {max(model_shards)} devices"
        if not self.on_gpus:
            return f"a KV cache of {self.engine.max_len:,} tokens exceeds its share of the memory"
        weight_bytes = arithmetic.device_weight_bytes(self.model, max(usable))
        return (
            f"weights take {weight_bytes / 1e9:,.0f} of {profile.memory_bytes / 1e9:,.0f} GB of "
            f"each device, {self.engine.max_len:,} tokens do not fit beside them"
        )

    def _estimate(self, profile: DeviceProfile, layout: Layout, machines: float) -> MachineEstimate:
        schedule, first_half = self._simulated(layout)
        device = Device(profile, self.model, layout.model_shards)
        # of the sample, on each replica
        share = self.workload.scale / (layout.replicas * machines)
        start_up = _start_up(profile, self.model)

        ranged_times = [run_times(schedule, device, position) for position in POSITIONS]
        busy_s: list[float] = []
        for position, sample_times in zip(POSITIONS, ranged_times, strict=True):
            half_times = run_times(first_half, device, position)
            busy_s.append(_scaled_s(sample_times, half_times, share))
        low_s, expected_s, high_s = start_up.total_s
        hours = (
            (low_s + busy_s[0]) / 3600,
            (expected_s + busy_s[1]) / 3600,
            (high_s + busy_s[2]) / 3600,
        )

        times = ranged_times[1]
        factor = busy_s[1] / times.total_s
        shares = {name: seconds / times.total_s for name, seconds in times.limits.items()}
        limits = dict(sorted(shares.items(), key=lambda item: -item[1]))
        return MachineEstimate(
            profile=profile,
            layout=layout,
            machines=machines,
            start_up=start_up,
            prefill_s=times.prefill_s * factor,
            decode_s=times.decode_s * factor,
            tail_s=times.tail_s,
            hours=hours,
            prompt_tokens=schedule.prompt_tokens * self.workload.scale,
            generated_tokens=schedule.generated_tokens * self.workload.scale,
            mbu=times.mbu,
            mfu=times.mfu,
            roof_share=times.roof_s / times.total_s,
            idle_slot_share=schedule.idle_slot_share,
            limits=limits,
            speeds=call_speeds(schedule, device),
        )

    def _simulated(self, layout: Layout) -> tuple[Schedule, Schedule]:
        """Returns the schedules of the sample and of its first half.

        A cache that holds the whole sample is as good as a larger one.
        """
        useful_tokens = 2 * self.workload.tokens + self.engine.max_len
        tokens = min(layout.cache_tokens, useful_tokens)
        key = (layout.slots, layout.prefill_tokens, tokens)
        if key not in self._schedules:
            engine = replace(
                self.engine,
                slots=layout.slots,
                prefill_tokens=layout.prefill_tokens,
                decode_steps=layout.decode_steps,
            )
            pages = tokens // engine.page_size
            policy = self.policy or call_policy(on_gpus=self.on_gpus)
            schedules = [
                simulate(
                    engine,
                    workload.batches,
                    pages=pages,
                    policy=policy,
                    batches_in_flight=workload.batches_in_flight,
                    completion_tokens=workload.completion_tokens,
                )
                for workload in (self.workload, self.workload.first_half())
            ]
            self._schedules[key] = (schedules[0], schedules[1])
        return self._schedules[key]


def _start_up(profile: DeviceProfile, model: ModelConfig) -> StartUp:
    weight_bytes = parameter_shapes(model).stored_bytes
    slowest, fastest = profile.load_bytes_per_s
    return StartUp(
        boot_s=profile.boot_s,
        load_s=(weight_bytes / fastest, weight_bytes / slowest),
        compile_s=profile.compile_s,
    )


def _scaled_s(times: RunTimes, half_times: RunTimes, share: float) -> float:
    """Returns the seconds of a replica that runs `share` times the sample."""
    if share <= 1:
        return times.total_s * share
    further_s = 2 * (times.total_s - half_times.total_s)
    return times.total_s + (share - 1) * further_s


def divisors(number: int) -> list[int]:
    """Returns the divisors of a number in ascending order."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _divides(model: ModelConfig, model_shards: int) -> bool:
    sizes = (model.num_kv_heads, model.ffn_size, model.vocab_size)
    return all(size % model_shards == 0 for size in sizes)
