"""The subcommands of `grok-batch`, one line each: name, module, purpose.

A subcommand is the `main` of a module. The module is imported when the subcommand runs: the list
itself costs nothing.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subcommand:
    """One subcommand.

    Its module has `main(arguments, *, program)`, which returns the exit code.
    """

    name: str
    module: str
    purpose: str

    def run(self, program: str, arguments: Sequence[str]) -> int:
        """Runs the subcommand and returns its exit code.

        Args:
            program: name of the console command.
            arguments: words after the name of the subcommand.
        """
        module = importlib.import_module(self.module)
        code: int = module.main(arguments, program=f"{program} {self.name}")
        return code


SUBCOMMANDS = (
    Subcommand("demo", "jobs.demo.run", "complete and score questions with a bundled tiny model"),
    Subcommand("score", "jobs.score_dataset", "completions, scores or perplexity of a data set"),
    Subcommand("evaluate", "jobs.evaluate", "MMLU, GSM8K, HumanEval, compared with earlier runs"),
    Subcommand("generate", "jobs.generate_dataset", "synthetic data: prompts, run, selection"),
    Subcommand("plan", "jobs.planning.plan", "hours and cost of a run, before there is data"),
    Subcommand("submit", "jobs.submit", "run a command on a Ray cluster and retry it until done"),
    Subcommand("status", "jobs.inspection.status", "how far a run is, from its folder alone"),
    Subcommand("show", "jobs.inspection.show", "rows of a run: a table, or one row whole"),
    Subcommand("compare", "jobs.inspection.compare", "rows and log-probs in which two runs differ"),
    Subcommand("verify-checkpoint", "jobs.verify_checkpoint", "check a checkpoint's files"),
    Subcommand("convert", "jobs.convert_checkpoint", "xAI's checkpoint to one that loads faster"),
    Subcommand("doctor", "jobs.smoke", "what this machine has, and whether the model runs here"),
)
