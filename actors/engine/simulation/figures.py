"""Estimates of machines as JSON values, and as a table of at most 80 columns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from actors.engine.planning.device_profiles import DeviceProfile
from actors.engine.simulation.machines import DoesNotFit, MachineEstimate

Figures = Mapping[str, Any]
USD = "USD"  # currency of the prices in device profiles


def machine_name(profile: DeviceProfile) -> str:
    """Returns the name of a kind of machine: its number of devices and their model."""
    if profile.devices_per_machine == 1:
        return profile.title
    return f"{profile.devices_per_machine}x{profile.title}"


def machine_figures(estimate: MachineEstimate | DoesNotFit) -> dict[str, Any]:
    """Returns an estimate as values of JSON; ranges are lists, the lowest value first."""
    profile = estimate.profile
    machine = machine_name(profile)
    if isinstance(estimate, DoesNotFit):
        return {"machine": machine, "fits": False, "reason": estimate.reason}

    layout = estimate.layout
    start_up = estimate.start_up
    speeds = estimate.speeds
    return {
        "machine": machine,
        "fits": True,
        "machines": estimate.machines,
        "mesh": layout.mesh,
        "replicas": layout.replicas,
        "slots": layout.slots,
        "prefill_tokens": layout.prefill_tokens,
        "weight_bytes_per_device": layout.weight_bytes,
        "memory_bytes_per_device": profile.memory_bytes,
        "kv_tokens": layout.cache_tokens,
        "hours": list(estimate.hours),
        "machine_hours": list(estimate.machine_hours),
        "cost": list(estimate.cost),
        "cost_per_machine_hour": list(profile.machine_hour_usd),
        "cost_per_million_tokens": list(estimate.cost_per_million_tokens),
        "tokens_per_s": estimate.tokens_per_s,
        "generated_tokens_per_s": estimate.generated_per_s,
        "prefill_tokens_per_s": speeds.prefill_tokens_per_s,
        "decode_tokens_per_s": speeds.decode_tokens_per_s,
        "decode_mbu": estimate.mbu,
        "prefill_mfu": estimate.mfu,
        "share_of_roof": estimate.roof_share,
        "seconds": {
            "boot": list(start_up.boot_s),
            "load": list(start_up.load_s),
            "compile": list(start_up.compile_s),
            "compile_after_load": list(start_up.after_load_s),
            "prefill": estimate.prefill_s,
            "decode": estimate.decode_s,
            "tail": estimate.tail_s,
            "longest_call": speeds.longest_call_s,
            "longest_prefill": speeds.longest_prefill_s,
        },
        "idle_slots": estimate.idle_slot_share,
        "limits": dict(estimate.limits),
        "limit": estimate.binding_limit,
        "measured_kernels": list(profile.measured_kernels),
    }


def machine_table(machines: Sequence[Figures], currency: str = USD) -> Iterator[str]:
    """Yields a table with a line for each kind of machine."""
    yield (
        f"{'machine':<14}{'mesh':>6}{'slots':>6}{'hours':>12}{'tokens/s':>9}"
        f"{'MBU':>5}{'MFU':>5}{currency:>13}  limit"
    )
    for machine in machines:
        if not machine["fits"]:
            yield f"{machine['machine']:<14}does not fit"
            continue
        yield (
            f"{machine['machine']:<14}{machine['mesh']:>6}{machine['slots']:>6}"
            f"{range_text(machine['hours']):>12}{machine['tokens_per_s']:>9,.0f}"
            f"{machine['decode_mbu']:>5.0%}{machine['prefill_mfu']:>5.0%}"
            f"{range_text(machine['cost']):>13}  {machine['limit']}"
        )


def machine_details(machines: Sequence[Figures], currency: str = USD) -> Iterator[str]:
    """Yields what the table leaves out: memory, start-up, phases, prices, what was measured."""
    measured: list[str] = []
    for machine in machines:
        name = machine["machine"]
        if not machine["fits"]:
            yield f"{name}: {machine['reason']}"
            continue
        seconds = machine["seconds"]
        weight_gb = machine["weight_bytes_per_device"] / 1e9
        memory_gb = machine["memory_bytes_per_device"] / 1e9
        replicas = "1 replica"
        if machine["replicas"] > 1:
            replicas = f"{machine['replicas']} replicas"
        yield (
            f"{name}: weights {weight_gb:,.0f} of {memory_gb:,.0f} GB a device, "
            f"{machine['kv_tokens']:,} KV tokens, {replicas}"
        )
        yield (
            f"  start-up: boot {_seconds(seconds['boot'])}, load {_seconds(seconds['load'])}, "
            f"then programs {_seconds(seconds['compile_after_load'])}"
        )
        yield (
            f"  replica: prefill {machine['prefill_tokens_per_s']:,.0f} tokens/s, full decode "
            f"{machine['decode_tokens_per_s']:,.0f}, longest call "
            f"{_digits(seconds['longest_call'])} s"
        )
        yield (
            f"  prefill {_hours(seconds['prefill'])} h, decode {_hours(seconds['decode'])} h, "
            f"idle slots {machine['idle_slots']:.0%}, {machine['share_of_roof']:.0%} of the roof"
        )
        yield (
            f"  {range_text(machine['cost_per_machine_hour'])} {currency} per machine-hour, "
            f"{range_text(machine['cost_per_million_tokens'])} per million tokens"
        )
        measured += machine["measured_kernels"]
    if not measured:
        yield "all times are estimates: no kernel has been measured on these machines"


def _hours(seconds: float) -> str:
    return _digits(seconds / 3600)


def _seconds(values: Sequence[float]) -> str:
    return f"{min(values):,.0f}-{max(values):,.0f} s"


def range_text(values: Sequence[float]) -> str:
    """Returns the lowest and the highest of values, with two or three digits."""
    low = _digits(min(values))
    high = _digits(max(values))
    if low == high:
        return low
    return f"{low}-{high}"


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.0f}"
    if value >= 1:
        return f"{value:.1f}"
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:.2g}"
