"""Plans a run before there is data: machines, slots, hours and cost of rows of given lengths.

    grok-batch plan --rows 1e6 --prompt-tokens 800 --completion-tokens 200
    grok-batch plan --rows 1e6 --prompt-tokens 800 --completion-tokens 200 --json true
    grok-batch plan --rows 14042 --prompt-tokens 750 --prefix-tokens 620 --rows-per-prefix 250

Lengths vary around the means that are given. The scheduler of the engine runs on a sample of such
rows, with tabulated times of its kernels on each kind of machine. Needs no tokenizer, no weights
and no GPU. With data, use `grok-batch score --dry-run`.
"""

import json
from collections.abc import Sequence

from actors.engine.simulation.figures import machine_details, machine_figures, machine_table
from jobs.cli.command import run_command
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import parse
from jobs.planning.config import PlanConfig
from jobs.planning.estimate import machine_estimates


def main(arguments: Sequence[str], *, program: str = "plan") -> int:
    """Prints the plan of a command line and returns the exit code."""
    return run_command(lambda: _plan(arguments, program))


def _plan(arguments: Sequence[str], program: str) -> int:
    config = parse(PlanConfig, arguments, program=program, description=str(__doc__))
    estimates = machine_estimates(config)
    figures = [machine_figures(estimate) for estimate in estimates]
    if config.json:
        print(json.dumps({"rows": config.row_count, "machines": figures}, indent=2))
        return ExitCode.OK

    for line in machine_table(figures):
        print(line)
    for line in machine_details(figures):
        print(line)
    return ExitCode.OK
