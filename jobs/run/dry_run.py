"""Estimates rows, tokens, padding, memory per device, time and cost of a planned run.

Starts no replica and loads no weights.

Tokens and padding are measured on a sample of the rows, spread over the input, which goes through
the stages that a run uses. Memory follows from the model's shapes. Hours and cost come from one
simulation of the engine's scheduler on this sample: for the replicas of the run and, if it is
planned for GPUs, for each kind of machine. They are estimates.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from actors.engine.planning.device_profiles import CPU, DeviceProfile, gpu_names, load_profile
from actors.engine.planning.sizes import (
    SizeFlags,
    affordable_tokens,
    cache_bytes_per_token,
    cache_tokens,
)
from actors.engine.simulation.figures import (
    USD,
    machine_details,
    machine_figures,
    machine_name,
    machine_table,
    range_text,
)
from actors.engine.simulation.machines import (
    SAMPLED_ROWS,
    SAMPLED_TOKENS,
    DoesNotFit,
    MachineEstimate,
    MachineEstimates,
    Workload,
)
from actors.engine.simulation.schedule import CompletionTokens, longest_completion
from actors.model import arithmetic
from actors.protocol.messages import Request
from actors.protocol.size_buckets import padded_length, prompt_size_buckets
from jobs.run.plan import ITEMSIZES, Plan
from jobs.run.reuse.copying import ReuseFigures
from pipeline.dispatch.buckets import fill_batches, mean_request_tokens
from pipeline.requests.sample import SAMPLED_SHARDS, sample_requests

ASSUMED_GPU = "h100"  # of a run that is planned for GPUs
# Why there are not more slots, by `EngineSizes.slot_limit`.
SLOT_LIMITS = {
    "flag": "--slots",
    "cpu": "the processor: more rows take as much longer",
    "kv_cache": "the KV cache, or the input is not known",
    "products": "arithmetic of the GPU: more rows take as much longer",
}
# Figures of `RunEstimate.figures` that are printed as a table.
TABLE = "machines"


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of the rows of a run, and what follows from it for all of them."""

    rows: int  # of the run
    sampled_rows: int
    failed: int  # of the sampled rows: they cannot run
    first_error: str  # of the first of these rows; empty without one
    requests: tuple[Request, ...]
    prompt_tokens: int  # of the sample: prompts and continuations
    new_tokens: int  # of the sample, at most: max_tokens of every completion
    padded_tokens: int  # of the sample: prompts and continuations in whole blocks
    batches: int  # of the sample
    windows: int = 0  # of the sample: of texts longer than the context
    scored_tokens: int = 0  # of the sample, where texts are split into windows

    @property
    def scale(self) -> float:
        """Rows of the run for one of the sample."""
        return self.rows / self.sampled_rows

    @property
    def padding(self) -> float:
        """Share of the computed positions that are padding."""
        if not self.padded_tokens:
            return 0.0
        return 1 - self.prompt_tokens / self.padded_tokens

    def figures(self) -> dict[str, Any]:
        """Returns the figures of all rows by name."""
        figures: dict[str, Any] = {
            "rows": self.rows,
            "rows_sampled": self.sampled_rows,
            "rows_failing": round(self.failed * self.scale),
            "prompt_tokens": round(self.prompt_tokens * self.scale),
            "new_tokens_at_most": round(self.new_tokens * self.scale),
            "padding": self.padding,
        }
        if self.windows:
            figures["windows"] = round(self.windows * self.scale)
            figures["scored_tokens"] = round(self.scored_tokens * self.scale)
        return figures


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """What a run takes: rows, sizes, memory, hours and cost."""

    sample: Sample
    shards: int
    sizes: Mapping[str, Any]  # of engines and batches, by name
    device_bytes: Mapping[str, int]  # on one device
    replicas: int
    assumed: DeviceProfile  # the devices of the run
    # the replicas of the run on these devices; None: no sampled row can run
    run: MachineEstimate | DoesNotFit | None
    machines: tuple[MachineEstimate | DoesNotFit, ...]  # one machine of each kind
    currency: str | None  # of the run's cost; None: that of --cost-per-replica-hour
    reuse: ReuseFigures | None = None  # rows that are copied; all else is of the others

    def figures(self) -> dict[str, Any]:
        """Returns all figures as values of JSON, by name; ranges are lists, lowest value first."""
        reuse: dict[str, Any] = {}
        if self.reuse is not None:
            reuse["reuse"] = self.reuse.as_json()
        return {
            **reuse,
            **self.sample.figures(),
            "shards": self.shards,
            "batches": math.ceil(self.sample.batches * self.sample.scale),
            **self.sizes,
            "device_bytes": dict(self.device_bytes),
            "device_bytes_total": sum(self.device_bytes.values()),
            "machine_assumed": machine_name(self.assumed),
            "replicas": self.replicas,
            **self._time_and_cost(),
            TABLE: [machine_figures(machine) for machine in self.machines],
        }

    def _time_and_cost(self) -> dict[str, Any]:
        """Returns hours and cost of the run's replicas; None where it cannot run."""
        if not isinstance(self.run, MachineEstimate):
            reason = "no sampled row can run"
            if isinstance(self.run, DoesNotFit):
                reason = f"does not fit: {self.run.reason}"
            return {
                "hours": None,
                "replica_hours": None,
                "cost": None,
                "currency": self.currency,
                "not_estimated": reason,
            }
        start_up = self.run.start_up
        return {
            "start_up_s": [start_up.total_s[0], start_up.total_s[2]],
            "hours": list(self.run.hours),
            "replica_hours": [hours * self.replicas for hours in self.run.hours],
            "cost": list(self.run.cost),
            "currency": self.currency,
        }

    def lines(self) -> Iterator[str]:
        """Yields the figures as lines of text, and the kinds of machines as a table."""
        figures = self.figures()
        machines = figures.pop(TABLE)
        if self.reuse is not None:
            del figures["reuse"]
            yield f"{'reuse':<24} {self.reuse.plan_text()}"
        yield from figure_lines(figures)
        if not machines:
            return
        yield ""
        yield f"simulated on {len(self.sample.requests):,} requests, for one machine of each kind"
        yield from machine_table(machines)
        yield from machine_details(machines)


def estimate(plan: Plan, rows: int | None = None, reuse: ReuseFigures | None = None) -> RunEstimate:
    """Returns the estimate of a run.

    Args:
        plan: the run.
        rows: of the run, where the input of the plan is a sample of it; None: those of the plan.
        reuse: rows that are copied from older runs, for the figures.

    Raises:
        DatasetError: a sampled shard cannot be read.
    """
    sample = input_sample(plan, rows)
    assumed = load_profile(_assumed_profile(plan))
    replicas = plan.config.replica_range()[1]
    run: MachineEstimate | DoesNotFit | None = None
    machines: list[MachineEstimate | DoesNotFit] = []
    if sample.requests:
        estimates = machine_estimates(plan, sample)
        run = _run_estimate(plan, estimates, assumed, replicas)
        if plan.devices.on_gpus:
            machines = [estimates.estimate(load_profile(name)) for name in gpu_names()]

    currency: str | None = USD
    if plan.config.cost_per_replica_hour is not None:
        currency = None
    return RunEstimate(
        sample=sample,
        shards=len(plan.own_shards),
        sizes=_size_figures(plan),
        device_bytes=device_bytes(plan),
        replicas=replicas,
        assumed=assumed,
        run=run,
        machines=tuple(machines),
        currency=currency,
        reuse=reuse,
    )


def input_sample(plan: Plan, rows: int | None = None) -> Sample:
    """Reads and tokenizes a sample of a run's rows.

    Args:
        plan: the run.
        rows: of the run; None: those of the plan.

    Raises:
        DatasetError: a sampled shard cannot be read.
    """
    sampled_shards = max(1, min(SAMPLED_SHARDS, len(plan.own_shards)))
    sample = sample_requests(
        plan.own_shards,
        plan.schema,
        plan.task,
        plan.tokenizer,
        plan.rules,
        rows_of_shard=math.ceil(SAMPLED_ROWS / sampled_shards),
    )
    if sample.unreadable is not None:
        raise sample.unreadable

    lengths: list[int] = []
    new_tokens = 0
    windows = 0
    scored_tokens = 0
    for request in sample.requests:
        lengths.append(len(request.prompt_ids))
        lengths += [len(ids) for ids in request.continuations]
        new_tokens += longest_completion(request)
        if plan.config.writes_windows:
            windows += 1
            scored_tokens += sum(len(ids) for ids in request.continuations)
    return Sample(
        rows=plan.own_row_count if rows is None else rows,
        sampled_rows=sample.rows,
        failed=sample.failed,
        first_error=sample.first_error,
        requests=sample.requests,
        prompt_tokens=sum(lengths),
        new_tokens=new_tokens,
        padded_tokens=sum(padded_length(length) for length in lengths),
        batches=len(list(fill_batches(sample.requests, plan.bucket_config()))),
        windows=windows,
        scored_tokens=scored_tokens,
    )


def machine_estimates(
    plan: Plan, sample: Sample, completion_tokens: CompletionTokens = longest_completion
) -> MachineEstimates:
    """Returns the estimates of a run on machines, from a sample with at least one request.

    Args:
        plan: the run.
        sample: of its rows.
        completion_tokens: how many tokens a request generates.
    """
    requests = _first_requests(sample.requests)
    batches = fill_batches(requests, plan.bucket_config())
    requests_of_run = len(sample.requests) * sample.scale
    return MachineEstimates(
        model=plan.model,
        engine=plan.engine_config(),
        workload=Workload(
            batches=[batch.requests for batch in batches],
            scale=requests_of_run / len(requests),
            batches_in_flight=plan.sizes.batches_in_flight,
            completion_tokens=completion_tokens,
        ),
        flags=SizeFlags(slots=_slots(plan), prefill_tokens=plan.sizes.prefill_tokens),
        request_tokens=mean_request_tokens(requests, prompt_size_buckets(plan.rules.max_len)),
        itemsize=ITEMSIZES[plan.config.dtype],
        on_gpus=plan.devices.on_gpus,
    )


def _slots(plan: Plan) -> int | None:
    """Returns the slots of a simulated engine; None: as each kind of machine allows.

    Virtual devices of a processor share its cores: they are simulated as one.
    """
    if not plan.devices.on_gpus:
        return plan.sizes.slots * plan.devices.data_shards
    if plan.sizes.slot_limit == "flag":
        return plan.sizes.slots
    return None


def _assumed_profile(plan: Plan) -> str:
    if plan.devices.on_gpus:
        return ASSUMED_GPU
    return CPU


def _run_estimate(
    plan: Plan, estimates: MachineEstimates, assumed: DeviceProfile, replicas: int
) -> MachineEstimate | DoesNotFit:
    """Returns the estimate for the replicas of the run, with its mesh and its price."""
    model_shards = 1
    machines = float(replicas)
    if plan.devices.on_gpus:
        model_shards = plan.devices.model_shards
        devices = replicas * plan.devices.data_shards * model_shards
        machines = devices / assumed.devices_per_machine

    replica_price = plan.config.cost_per_replica_hour
    if replica_price is not None:
        machine_price = replica_price * replicas / machines
        assumed = replace(assumed, machine_hour_usd=(machine_price, machine_price))
    return estimates.estimate(assumed, [model_shards], machines)


def device_bytes(plan: Plan) -> Mapping[str, int]:
    """Returns the bytes of weights and of the KV cache on one device.

    Weights are int8 with scales; the KV cache holds what the slots can fill, or what memory allows
    if that is less.
    """
    itemsize = ITEMSIZES[plan.config.dtype]
    model_shards = plan.devices.model_shards
    token_bytes = cache_bytes_per_token(plan.model, model_shards, itemsize)
    return {
        "weights": arithmetic.device_weight_bytes(plan.model, model_shards),
        "kv_cache": _cache_tokens(plan) * token_bytes,
    }


def _cache_tokens(plan: Plan) -> int:
    """Returns the tokens of KV cache of one data shard."""
    affordable = affordable_tokens(plan.model, plan.devices, ITEMSIZES[plan.config.dtype])
    return cache_tokens(plan.engine_config(), plan.devices.data_shards, affordable)


def _size_figures(plan: Plan) -> dict[str, Any]:
    """Returns the sizes of engines and batches, and why there are not more slots."""
    sizes = plan.sizes
    data_shards = plan.devices.data_shards
    return {
        "slots": sizes.slots * data_shards,
        "slots_limited_by": SLOT_LIMITS[sizes.slot_limit],
        "kv_tokens": _cache_tokens(plan) * data_shards,
        "prefill_tokens": sizes.prefill_tokens,
        "batch_tokens": sizes.batch_tokens,
        "batches_in_flight": sizes.batches_in_flight,
    }


def _first_requests(requests: Sequence[Request]) -> list[Request]:
    """Returns the first requests, at least one, of `SAMPLED_TOKENS` tokens at most."""
    first: list[Request] = []
    tokens = 0
    for request in requests:
        tokens += request.longest
        if first and tokens > SAMPLED_TOKENS:
            break
        first.append(request)
    return first


def figure_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yields figures as lines of text: the name and the value in its unit."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            for part, part_value in value.items():
                label = f"{name} {part}"
                yield f"{label:<24} {_text(name, part_value)}"
        else:
            yield f"{name:<24} {_text(name, value)}"


def _text(name: str, value: object) -> str:
    if value is None and name == "currency":
        return "that of --cost-per-replica-hour"
    if value is None:
        return "-"
    if isinstance(value, list):
        return range_text(value)
    if "bytes" in name and isinstance(value, int):
        return f"{value / 1e9:,.3f} GB"
    if name == "padding":
        return f"{value:.1%}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
