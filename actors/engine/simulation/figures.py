"""Estimates of machines as JSON values, and as a table of at most 80 columns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from actors.engine.simulation.machines import DoesNotFit, MachineEstimate

Figures = Mapping[str, Any]


def machine_figures(estimate: MachineEstimate | DoesNotFit) -> dict[str, Any]:
    """Returns an estimate as values of JSON; ranges are lists, the lowest value first."""
    profile = estimate.profile
    machine = f"{profile.devices_per_machine}x{profile.title}"
    if isinstance(estimate, DoesNotFit):
        return {"machine": machine, "fits": False, "reason": estimate.reason}

    layout = estimate.layout
    return {
        "machine": machine,
        "fits": True,
        "mesh": layout.mesh,
        "replicas": layout.replicas,
        "slots": layout.slots,
        "prefill_tokens": layout.prefill_tokens,
        "weight_bytes_per_device": layout.weight_bytes,
        "memory_bytes_per_device": profile.memory_bytes,
        "kv_tokens": layout.cache_tokens,
        "hours": list(estimate.hours),
        "cost_usd": list(estimate.cost_usd),
        "usd_per_hour": list(profile.machine_hour_usd),
        "usd_per_million_tokens": list(estimate.usd_per_million_tokens),
        "tokens_per_s": estimate.tokens_per_s,
        "generated_tokens_per_s": estimate.generated_per_s,
        "decode_mbu": estimate.mbu,
        "prefill_mfu": estimate.mfu,
        "share_of_roof": estimate.roof_share,
        "seconds": {
            "load": estimate.load_s,
            "compile": list(estimate.compile_s),
            "prefill": estimate.prefill_s,
            "decode": estimate.decode_s,
            "tail": estimate.tail_s,
        },
        "idle_slots": estimate.idle_slot_share,
        "limits": dict(estimate.limits),
        "limit": estimate.binding_limit,
        "measured_kernels": list(profile.measured_kernels),
    }


def machine_table(machines: Sequence[Figures]) -> Iterator[str]:
    """Yields a table with a line for each machine."""
    yield (
        f"{'machine':<14}{'mesh':>6}{'slots':>6}{'hours':>12}{'tokens/s':>9}"
        f"{'MBU':>5}{'MFU':>5}{'USD':>13}  limit"
    )
    for machine in machines:
        if not machine["fits"]:
            yield f"{machine['machine']:<14}does not fit"
            continue
        yield (
            f"{machine['machine']:<14}{machine['mesh']:>6}{machine['slots']:>6}"
            f"{_range(machine['hours']):>12}{machine['tokens_per_s']:>9,.0f}"
            f"{machine['decode_mbu']:>5.0%}{machine['prefill_mfu']:>5.0%}"
            f"{_range(machine['cost_usd']):>13}  {machine['limit']}"
        )


def machine_details(machines: Sequence[Figures]) -> Iterator[str]:
    """Yields what the table does not say: memory, time by phase, prices, and what was measured."""
    measured: list[str] = []
    for machine in machines:
        name = machine["machine"]
        if not machine["fits"]:
            yield f"{name}: {machine['reason']}"
            continue
        seconds = machine["seconds"]
        weight_gb = machine["weight_bytes_per_device"] / 1e9
        memory_gb = machine["memory_bytes_per_device"] / 1e9
        yield (
            f"{name}: weights {weight_gb:,.0f} of {memory_gb:,.0f} GB a device, "
            f"{machine['kv_tokens']:,} KV tokens, {machine['replicas']} replica(s)"
        )
        yield (
            f"  load {seconds['load']:,.0f} s, compile {_range(seconds['compile'])} s, "
            f"prefill {_hours(seconds['prefill'])} h, decode {_hours(seconds['decode'])} h"
        )
        yield (
            f"  idle slots {machine['idle_slots']:.0%}, {machine['share_of_roof']:.0%} of the "
            f"roof, {_range(machine['usd_per_million_tokens'])} USD per million tokens"
        )
        measured += machine["measured_kernels"]
    if not measured:
        yield "all times are estimates: no kernel has been measured on these machines"


def _hours(seconds: float) -> str:
    return _digits(seconds / 3600)


def _range(values: Sequence[float]) -> str:
    """Returns the lowest and the highest of values, with two or three digits."""
    return f"{_digits(min(values))}-{_digits(max(values))}"


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.0f}"
    if value >= 1:
        return f"{value:.1f}"
    return f"{value:.2f}"
