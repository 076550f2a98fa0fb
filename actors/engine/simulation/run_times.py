"""Seconds of a schedule on a device: by phase, by limit, and as a share of the roof.

Also the speeds of its phases, and the times in which a sequence receives no token.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from typing import TypeVar

from actors.engine.planning.device_profiles import DeviceProfile
from actors.engine.simulation.call_costs import NO_COST, CallCost, CallCosts
from actors.engine.simulation.floors import Number, model_shard
from actors.engine.simulation.schedule import DecodeCall, PrefillCall, Schedule
from actors.model import arithmetic
from actors.model.config import ModelConfig

TABLE_BYTES = 2  # of a number of the embedding on GPUs
CACHE_ITEM_BYTES = 2
ALL_EXPERTS = 10**6  # tokens of a step that reads all experts
CONTEXT_STEP = 16  # contexts are rounded to it: calls of equal shapes are priced once


@dataclass(frozen=True, slots=True)
class Device:
    """One device of a mesh that runs a model."""

    profile: DeviceProfile
    model: ModelConfig
    model_shards: int  # devices along the mesh's model axis


@dataclass(frozen=True, slots=True)
class _UsefulWork:
    """What tokens must take at least, on all devices of the model axis together."""

    token_flops: Number  # of a token that sees no key
    key_flops: Number  # more for each key that a token sees
    projection_flops: Number  # of a token's logits
    key_bytes: Number  # of a key and its value
    dense_bytes: Number  # of weights that each step reads
    expert_bytes: Number  # of all experts
    unchosen_share: float  # of experts, by one token

    def flops(self, tokens: Number, context: Number) -> float:
        """Returns the operations of tokens that see `context` keys."""
        return tokens * (self.token_flops + context * self.key_flops)

    def weight_bytes(self, tokens: Number) -> float:
        """Returns the bytes of weights that a step of `tokens` tokens reads."""
        return self.dense_bytes + self.expert_bytes * (1 - self.unchosen_share**tokens)


@lru_cache
def _useful_work(model: ModelConfig) -> _UsefulWork:
    token_flops = arithmetic.token_flops(model, 0.0)
    dense_bytes = arithmetic.step_weight_bytes(model, 0, table_itemsize=TABLE_BYTES)
    all_bytes = arithmetic.step_weight_bytes(model, ALL_EXPERTS, table_itemsize=TABLE_BYTES)
    return _UsefulWork(
        token_flops=token_flops,
        key_flops=arithmetic.token_flops(model, 1.0) - token_flops,
        projection_flops=arithmetic.projection_flops(model),
        key_bytes=arithmetic.cache_bytes(model, CACHE_ITEM_BYTES),
        dense_bytes=dense_bytes,
        expert_bytes=all_bytes - dense_bytes,
        unchosen_share=1 - model.num_selected_experts / model.num_experts,
    )


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Seconds of a schedule on one replica."""

    prefill_s: float
    decode_s: float
    tail_s: float  # of the decode calls at the end with less than half of the slots in use
    roof_s: float  # with every byte and operation at the peak rate of the device
    mbu: float  # of decode: bytes that must be read, as a share of the bandwidth
    mfu: float  # of prefill: useful operations, as a share of the peak
    limits: Mapping[str, float]  # seconds by what they are spent on, see `call_costs.LIMITS`

    @property
    def total_s(self) -> float:
        """Seconds of all calls."""
        return self.prefill_s + self.decode_s


def run_times(schedule: Schedule, device: Device, position: Number = 0.5) -> RunTimes:
    """Returns the times of a schedule.

    Args:
        schedule: the calls of one replica.
        device: each of the replica's devices.
        position: where between the lowest (0) and the highest (1) estimate the times lie.
    """
    profile = device.profile
    shard = model_shard(device.model, device.model_shards)
    costs = CallCosts(profile, shard, device.model.num_layers, position, schedule.overlaps_calls)
    prefill = _total(_prefill_cost, costs, schedule.prefill_calls)
    decode = _total(_decode_cost, costs, schedule.decode_calls)

    work = _useful_work(device.model)
    prefill_floor = _Floor(device, work)
    for call in schedule.prefill_calls:
        prefill_floor.add_prefill(call, schedule.data_shards)
    decode_floor = _Floor(device, work)
    for decode_call in schedule.decode_calls:
        decode_floor.add_decode(decode_call, schedule.data_shards)

    total = prefill + decode
    mbu = 0.0
    if decode.total_s:
        mbu = decode_floor.memory_bytes / profile.memory_bytes_per_s / decode.total_s
    mfu = 0.0
    if prefill.total_s:
        mfu = prefill_floor.flops / profile.flops_per_s / prefill.total_s
    return RunTimes(
        prefill_s=prefill.total_s,
        decode_s=decode.total_s,
        tail_s=_tail_s(schedule, costs),
        roof_s=prefill_floor.seconds + decode_floor.seconds,
        mbu=mbu,
        mfu=mfu,
        limits=total.seconds,
    )


@dataclass(frozen=True, slots=True)
class CallSpeeds:
    """Speeds of one replica within its calls, and the longest times without a token."""

    prefill_tokens_per_s: float  # computed by prefill calls, without padding; 0 without any
    decode_tokens_per_s: float  # with every slot in use; 0 where nothing is generated
    longest_call_s: float
    longest_prefill_s: float  # of prefill calls in a row: decode waits


def call_speeds(schedule: Schedule, device: Device, position: Number = 0.5) -> CallSpeeds:
    """Returns the speeds of a schedule; arguments as `run_times`."""
    shard = model_shard(device.model, device.model_shards)
    layers = device.model.num_layers
    costs = CallCosts(device.profile, shard, layers, position, schedule.overlaps_calls)
    seconds_by_shape: dict[PrefillCall | DecodeCall, float] = {}
    longest_call_s = 0.0
    longest_prefill_s = 0.0
    prefill_s = 0.0  # of all calls
    prefill_run_s = 0.0  # since the last decode call
    for call in schedule.calls:
        shape = _shape(call)
        if shape not in seconds_by_shape:
            seconds_by_shape[shape] = _cost(costs, shape).total_s
        call_s = seconds_by_shape[shape]
        longest_call_s = max(longest_call_s, call_s)
        if isinstance(call, PrefillCall):
            prefill_s += call_s
            prefill_run_s += call_s
            longest_prefill_s = max(longest_prefill_s, prefill_run_s)
        else:
            prefill_run_s = 0.0

    prefill_tokens_per_s = 0.0
    if prefill_s:
        prefill_tokens_per_s = schedule.prefill_tokens / prefill_s
    return CallSpeeds(
        prefill_tokens_per_s=prefill_tokens_per_s,
        decode_tokens_per_s=_full_decode_tokens_per_s(schedule, costs),
        longest_call_s=longest_call_s,
        longest_prefill_s=longest_prefill_s,
    )


def _full_decode_tokens_per_s(schedule: Schedule, costs: CallCosts) -> float:
    """Returns the tokens/s of decode calls with every slot in use, at the mean context."""
    calls = [call for call in schedule.decode_calls if call.tokens]
    if not calls:
        return 0.0
    tokens = sum(call.tokens for call in calls)
    context = sum(call.context * call.tokens for call in calls) / tokens
    slots = schedule.slots // schedule.data_shards
    full = replace(
        calls[0],
        rows=slots,
        sequences=slots,
        steps=max(call.steps for call in calls),
        context=context,
    )
    return schedule.slots * full.steps / _decode_cost(costs, full).total_s


@dataclass(slots=True)
class _Floor:
    """Least work of the calls on one device."""

    device: Device
    work: _UsefulWork
    memory_bytes: Number = 0.0
    flops: float = 0.0
    seconds: float = 0.0

    def add_prefill(self, call: PrefillCall, data_shards: int) -> None:
        """Adds a prefill call."""
        tokens = call.tokens / data_shards
        self._add(self.work.weight_bytes(tokens), self.work.flops(tokens, call.context))

    def add_decode(self, call: DecodeCall, data_shards: int) -> None:
        """Adds a decode call."""
        if not call.steps:
            return
        tokens = call.tokens / data_shards
        flops = self.work.flops(tokens, call.context) + tokens * self.work.projection_flops
        weight_bytes = call.steps * self.work.weight_bytes(tokens / call.steps)
        self._add(weight_bytes + tokens * call.context * self.work.key_bytes, flops)

    def _add(self, memory_bytes: Number, flops: Number) -> None:
        """Adds the work of a call, whose products and reads may overlap."""
        profile = self.device.profile
        device_bytes = memory_bytes / self.device.model_shards
        device_flops = flops / self.device.model_shards
        self.memory_bytes += device_bytes
        self.flops += device_flops
        memory_s = device_bytes / profile.memory_bytes_per_s
        self.seconds += max(memory_s, device_flops / profile.flops_per_s)


Call = TypeVar("Call", bound=PrefillCall | DecodeCall)


def _total(
    price: Callable[[CallCosts, Call], CallCost], costs: CallCosts, calls: Iterable[Call]
) -> CallCost:
    """Returns the cost of calls; those of equal shapes are priced once."""
    total = NO_COST
    for call, count in Counter(_shape(call) for call in calls).items():
        total += price(costs, call) * count
    return total


def _shape(call: Call) -> Call:
    """Returns a call without the figures that its cost does not depend on."""
    context = max(1, round(call.context / CONTEXT_STEP)) * CONTEXT_STEP
    return replace(call, context=float(context), tokens=0)


def _cost(costs: CallCosts, call: PrefillCall | DecodeCall) -> CallCost:
    if isinstance(call, PrefillCall):
        return _prefill_cost(costs, call)
    return _decode_cost(costs, call)


def _prefill_cost(costs: CallCosts, call: PrefillCall) -> CallCost:
    cost = costs.prefill(call.positions, call.context)
    for targets in call.score_calls:
        cost += costs.score(targets)
    return cost


def _decode_cost(costs: CallCosts, call: DecodeCall) -> CallCost:
    if not call.steps:
        return NO_COST
    return costs.decode(call.rows, call.steps, call.sequences, call.context, sorts=call.sorts)


def _tail_s(schedule: Schedule, costs: CallCosts) -> float:
    """Returns the seconds of the last decode calls, with less than half of the slots in use."""
    slots = schedule.slots // schedule.data_shards
    latest_first = reversed(schedule.decode_calls)
    tail = takewhile(lambda call: 2 * call.sequences < slots, latest_first)
    return _total(_decode_cost, costs, tail).total_s
