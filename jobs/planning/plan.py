"""Plans a run before machines are rented: memory, slots, hours and cost on each kind of machine.

    grok-batch plan --rows 1e6 --prompt-tokens 800 --completion-tokens 200
    grok-batch plan --rows 1e6 --prompt-tokens 800 --completion-tokens 200 --json
    grok-batch plan --rows 14042 --prompt-tokens 750 --prefix-tokens 620 --rows-per-prefix 250
    grok-batch plan -i prompts.parquet --tokenizer tokenizer.model --max-tokens 256
    grok-batch plan --rows 1e6 --prompt-tokens 800 --completion-tokens 200 --gpu h100 --policies

Lengths are those of a sample of the rows of --input. Without data, they vary around the means that
are given; then no tokenizer is needed. The scheduler of the engine runs on the sample, with
tabulated times of its kernels on each kind of machine. Needs no weights, no output and no GPU.
"""

import json
from collections.abc import Iterator, Sequence

from actors.engine.simulation.figures import machine_details, machine_table
from jobs.cli.command import run_command
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import parse
from jobs.planning.config import PlanConfig
from jobs.planning.estimate import MachinePlan, machine_plan
from jobs.planning.policies import policy_figures, policy_table

DESCRIPTION = (
    "Plans a run before machines are rented: memory, slots, hours and cost on each kind of "
    "machine, from a simulation of the scheduler. Needs --rows and --prompt-tokens, or data as "
    "--input; no weights, no output and no GPU. All times are estimates. More in docs/planning.md."
)


def main(arguments: Sequence[str], *, program: str = "plan") -> int:
    """Prints the plan of a command line and returns the exit code."""
    return run_command(lambda: _plan(arguments, program))


def _plan(arguments: Sequence[str], program: str) -> int:
    config = parse(PlanConfig, arguments, program=program, description=DESCRIPTION)
    if config.policies:
        _print_policies(config)
        return ExitCode.OK

    plan = machine_plan(config)
    if config.json:
        print(json.dumps(plan.figures(), indent=2))
        return ExitCode.OK
    for line in plan_lines(plan, config.machines):
        print(line)
    return ExitCode.OK


def _print_policies(config: PlanConfig) -> None:
    figures = policy_figures(config)
    if config.json:
        print(json.dumps(figures, indent=2))
        return
    for line in policy_table(figures["policies"]):
        print(line)


def plan_lines(plan: MachinePlan, machine_count: int) -> Iterator[str]:
    """Yields a plan as lines of at most 80 characters.

    Args:
        plan: the plan.
        machine_count: machines that share the rows.
    """
    figures = plan.figures()
    yield (
        f"{figures['rows']:,} rows, {figures['prompt_tokens']:,} prompt tokens, "
        f"{figures['generated_tokens']:,} generated"
    )
    if figures.get("rows_failing"):
        yield f"{figures['rows_failing']:,} of the rows cannot run (grok-batch score says why)"
    machines = "1 machine"
    if machine_count > 1:
        machines = f"{machine_count} machines together"
    yield f"hours and {plan.currency} of {machines}, start-up included:"
    yield ""
    yield from machine_table(figures["machines"], plan.currency)
    yield from machine_details(figures["machines"], plan.currency)
