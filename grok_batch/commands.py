"""The subcommands of `grok-batch`: name, module, class of the flags, purpose.

A subcommand is the `main` of a module. The module is imported when the subcommand runs: the list
itself costs nothing.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grok_batch.start_line import start_line


@dataclass(frozen=True, slots=True)
class Subcommand:
    """One subcommand.

    Its module has `main(arguments, *, program)`, which returns the exit code.
    """

    name: str
    module: str
    config: str  # module:class of its flags
    purpose: str
    first_words: tuple[str, ...] = ()  # flags whose values stand first, without the flag
    steps: tuple[str, ...] = ()  # one of them may stand first

    def run(self, program: str, arguments: Sequence[str]) -> int:
        """Runs the subcommand and returns its exit code.

        Args:
            program: name of the console command.
            arguments: words after the name of the subcommand.
        """
        with start_line():
            module = importlib.import_module(self.module)
        code: int = module.main(arguments, program=f"{program} {self.name}")
        return code

    def config_class(self) -> type[Any]:
        """Returns the dataclass of its flags."""
        module, _, name = self.config.partition(":")
        config_class: type[Any] = getattr(importlib.import_module(module), name)
        return config_class


SUBCOMMANDS = (
    Subcommand(
        "demo",
        "jobs.demo.run",
        "jobs.demo.run:DemoConfig",
        "complete and score questions with a bundled tiny model",
    ),
    Subcommand(
        "score",
        "jobs.score_dataset",
        "jobs.run.config:ScoreConfig",
        "completions, scores, perplexity or embeddings of a data set",
    ),
    Subcommand(
        "evaluate",
        "jobs.evaluate",
        "jobs.evaluation.config:EvaluateConfig",
        "MMLU, GSM8K, HumanEval, compared with earlier runs",
        steps=("prompts", "run", "report"),
    ),
    Subcommand(
        "generate",
        "jobs.generate_dataset",
        "jobs.synthesis.config:GenerateConfig",
        "synthetic data: prompts, run, selection",
        steps=("prompts", "run", "select"),
    ),
    Subcommand(
        "plan",
        "jobs.planning.plan",
        "jobs.planning.config:PlanConfig",
        "hours and cost of a run, before there is data",
    ),
    Subcommand(
        "submit",
        "jobs.submit",
        "jobs.submission.config:SubmitConfig",
        "run a command on a Ray cluster and retry it until done",
    ),
    Subcommand(
        "status",
        "jobs.inspection.status",
        "jobs.inspection.status:StatusConfig",
        "how far a run is, from its folder alone",
        first_words=("run",),
    ),
    Subcommand(
        "show",
        "jobs.inspection.show",
        "jobs.inspection.show:ShowConfig",
        "rows of a run: a table, or one row whole",
        first_words=("run",),
    ),
    Subcommand(
        "compare",
        "jobs.inspection.compare",
        "jobs.inspection.compare:CompareConfig",
        "rows and log-probs in which two runs differ",
        first_words=("run_a", "run_b"),
    ),
    Subcommand(
        "verify-checkpoint",
        "jobs.verify_checkpoint",
        "jobs.weights.verify:VerifyConfig",
        "check a checkpoint's files",
    ),
    Subcommand(
        "verify-run",
        "jobs.inspection.verify_run",
        "jobs.inspection.verify_run:VerifyRunConfig",
        "compute a sample of a run again and compare it",
        first_words=("run",),
    ),
    Subcommand(
        "convert",
        "jobs.convert_checkpoint",
        "jobs.weights.convert:ConvertConfig",
        "xAI's checkpoint to one that loads faster",
    ),
    Subcommand(
        "doctor",
        "jobs.smoke",
        "jobs.smoke:DoctorConfig",
        "what this machine has, and whether the model runs here",
    ),
    Subcommand(
        "completion",
        "grok_batch.completion",
        "grok_batch.completion:CompletionConfig",
        "a script of completion for bash, zsh or fish",
        first_words=("shell",),
    ),
)
