"""Simulated speed of the ways in which an engine can make its calls, for rows of given lengths.

The first ones are those that the present one was chosen against. docs/benchmarks/simulation.md
has the results.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from actors.engine.planning.sizes import GPU_DECODE_STEPS, GPU_PREFILL_TOKENS, SizeFlags
from actors.engine.simulation.machines import DoesNotFit, MachineEstimates
from actors.engine.simulation.schedule import GPU_POLICY
from jobs.planning.config import PlanConfig
from jobs.planning.estimate import gpu_profiles, workload_estimates

# Steps of a decode call where the devices wait for the host after each.
STEPS_IN_TURN = 8


@dataclass(frozen=True, slots=True)
class Policy:
    """One way to make calls.

    Attributes:
        orders_calls: prefill and decode wait until their calls are full.
        overlaps_calls: the host works while the devices run.
        deterministic: one size of each kind of call.
    """

    title: str
    slots: int
    prefill_tokens: int = GPU_PREFILL_TOKENS
    orders_calls: bool = True
    overlaps_calls: bool = True
    deterministic: bool = False

    @property
    def decode_steps(self) -> int:
        """Tokens of a sequence in one decode call."""
        if self.overlaps_calls:
            return GPU_DECODE_STEPS
        return STEPS_IN_TURN


POLICIES = (
    Policy("in turn", 64, prefill_tokens=2048, orders_calls=False, overlaps_calls=False),
    Policy("in turn", 256, orders_calls=False, overlaps_calls=False),
    Policy("ordered", 256, overlaps_calls=False),
    Policy("overlapped", 256),
    Policy("deterministic", 256, deterministic=True),
    Policy("in turn", 512, orders_calls=False, overlaps_calls=False),
    Policy("ordered", 512, overlaps_calls=False),
    Policy("overlapped", 512),
    Policy("deterministic", 512, deterministic=True),
)


def policy_figures(config: PlanConfig) -> dict[str, Any]:
    """Returns the rows, and the speed of each policy on each kind of machine, as values of JSON.

    Machines that the model does not fit are left out.

    Raises:
        ConfigError, DatasetError, ModelError: as `machine_plan`.
    """
    rows, estimates = workload_estimates(config)
    figures: list[dict[str, Any]] = []
    for profile in gpu_profiles(config):
        for policy in POLICIES:
            estimate = _with_policy(estimates, policy).estimate(profile)
            if isinstance(estimate, DoesNotFit):
                continue
            figures.append(
                {
                    "machine": f"{profile.devices_per_machine}x{profile.title}",
                    "policy": policy.title,
                    "slots": policy.slots,
                    "prefill_tokens": policy.prefill_tokens,
                    "decode_steps": policy.decode_steps,
                    "mesh": estimate.layout.mesh,
                    "rows_per_s": rows["rows"] / estimate.busy_s,
                    "tokens_per_s": estimate.tokens_per_s,
                    "share_of_roof": estimate.roof_share,
                    "host_share": estimate.limits["host"],
                }
            )
    return {**rows, "policies": figures}


def _with_policy(estimates: MachineEstimates, policy: Policy) -> MachineEstimates:
    return replace(
        estimates,
        engine=replace(estimates.engine, deterministic=policy.deterministic),
        flags=SizeFlags(slots=policy.slots, prefill_tokens=policy.prefill_tokens),
        policy=replace(
            GPU_POLICY, orders_calls=policy.orders_calls, overlaps_calls=policy.overlaps_calls
        ),
        decode_steps=policy.decode_steps,
    )


def policy_table(figures: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yields a table with a line for each policy and machine."""
    yield (
        f"{'machine':<14}{'mesh':>5} {'policy':<14}{'slots':>6}{'prefill':>8}"
        f"{'rows/s':>9}{'tokens/s':>10}{'roof':>6}{'host':>6}"
    )
    for figure in figures:
        yield (
            f"{figure['machine']:<14}{figure['mesh']:>5} {figure['policy']:<14}"
            f"{figure['slots']:>6}{figure['prefill_tokens']:>8,}{figure['rows_per_s']:>9.3g}"
            f"{figure['tokens_per_s']:>10,.0f}{figure['share_of_roof']:>6.0%}"
            f"{figure['host_share']:>6.1%}"
        )
