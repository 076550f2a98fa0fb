"""Runs both tasks of the main job over the questions of the demo, and shows how many are right.

    make demo        (or: python jobs/demo/run.py [-o FOLDER], or: grok-batch demo)

Runs `jobs/score_dataset.py` as a user would, in processes of its own, and prints the commands; then
reads the Parquet files in the fresh folder runs/demo-<time>. The model was not trained on these
questions.
"""

import os
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Started as a file, Python looks for modules in jobs/demo/, not in the repository.
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from jobs.cli.command import run_command, run_main
from jobs.cli.exit_codes import ExitCode
from jobs.cli.parser import flag, parse

PROMPTS = Path(__file__).with_name("prompts.parquet")
MAIN_JOB = Path(__file__).parents[1] / "score_dataset.py"
FLAGS = {"--model": "demo", "--replicas": "2", "--mesh": "1x4"}
TASKS = {
    "generate": {"--task": "generate", "--max-tokens": "24", "--logprobs": "2"},
    "score": {"--task": "score"},
}


@dataclass(frozen=True)
class DemoConfig:
    """Flags of the demo."""

    output: str | None = flag(
        None, "folder of both runs, made if absent; default: runs/demo-<time>", short="-o"
    )


def run_task(task: str, output: Path) -> int:
    """Prints and runs the main job for one task; returns its exit code."""
    flags = {"--input": _shown(PROMPTS), **FLAGS, **TASKS[task], "--output": str(output)}
    arguments = list(chain.from_iterable(flags.items()))
    print(f"\n$ {shlex.join([*_shown_program(), *arguments])}", flush=True)
    # A local Ray, also beside another Ray on this machine.
    environment = os.environ | {"RAY_ADDRESS": "local"}
    command = [sys.executable, str(MAIN_JOB), *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


def _shown_program() -> list[str]:
    """Returns the main job as a user types it: with the console command, where it is installed."""
    script = Path(sys.executable).with_name("grok-batch")
    if script.exists():
        return [_shown(script), "score"]
    return [_shown(Path(sys.executable)), _shown(MAIN_JOB)]


def _shown(path: Path) -> str:
    """Returns a path as a user types it in the working directory."""
    here = Path.cwd()
    if path.is_relative_to(here):
        return str(path.relative_to(here))
    return str(path)


def read_rows(output: Path) -> pa.Table:
    """Returns all rows of a run folder."""
    table: pa.Table = ds.dataset(output / "data", format="parquet").to_table()
    return table


class Answered(NamedTuple):
    """A question with the results of both runs."""

    question: dict[str, Any]  # its row of prompts.parquet
    completion: dict[str, Any]  # its row of the run that generates
    scores: list[float]  # log-likelihood of each choice

    @property
    def preferred(self) -> str:
        """The likeliest choice."""
        choice: str = self.question["choices"][self.scores.index(max(self.scores))]
        return choice

    @property
    def completed_right(self) -> bool:
        """Whether the completion is the answer, to the letter."""
        return bool(self.completion["text"] == self.question["answer"])

    @property
    def preferred_right(self) -> bool:
        """Whether the likeliest choice is the answer."""
        return bool(self.preferred == self.question["answer"])


def join(questions: pa.Table, completed: pa.Table, scored: pa.Table) -> list[Answered]:
    """Returns every question with both answers.

    A run does not copy its prompts: they are joined by id.
    """
    completions = {row["id"]: row for row in completed.to_pylist()}
    scores: dict[Any, Any] = {}
    for row in scored.select(["id", "loglikelihood"]).to_pylist():
        scores[row["id"]] = row["loglikelihood"]
    answered = []
    for row in questions.to_pylist():
        row_id = row["id"]
        answered.append(Answered(row, completions[row_id], scores[row_id]))
    return answered


def answers_table(answered: list[Answered]) -> Table:
    """Returns one question of each category with its answers."""
    table = Table(
        title="both runs, joined with their prompts by id", title_justify="left", show_lines=True
    )
    for name in ("prompt", "completion", "choice: log-likelihood"):
        table.add_column(name, overflow="fold", ratio=1)
    first_of_category = {answer.question["category"]: answer for answer in reversed(answered)}
    for answer in reversed(first_of_category.values()):
        prompt = Text(answer.question["prompt"])
        table.add_row(prompt, Text(_completion_cell(answer)), Text(_choices_cell(answer)))
    return table


def _completion_cell(answer: Answered) -> str:
    row = answer.completion
    verdict = "right"
    if not answer.completed_right:
        verdict = f"wrong: {answer.question['answer']!r} is right"
    figures = f"{row['completion_tokens']} tokens, log-prob {row['cumulative_logprob']:.2f}"
    return f"{row['text']!r}\n{figures}\n{verdict}"


def _choices_cell(answer: Answered) -> str:
    lines = []
    for choice, score in zip(answer.question["choices"], answer.scores, strict=True):
        line = f"{choice!r}: {score:.2f}"
        if choice == answer.preferred:
            line += "  <- right" if answer.preferred_right else "  <- wrong"
        lines.append(line)
    return "\n".join(lines)


def accuracy_table(answered: list[Answered]) -> Table:
    """Returns the share of right answers by category, and that of guessing among the choices."""
    table = Table(title="questions that the model was not trained on", title_justify="left")
    for name in ("category", "questions", "completed right", "likeliest choice right", "by chance"):
        table.add_column(name, justify="left" if name == "category" else "right")
    by_category: dict[str, list[Answered]] = defaultdict(list)
    for answer in answered:
        by_category[answer.question["category"]].append(answer)

    for category, answers in [*by_category.items(), ("all", answered)]:
        count = len(answers)
        completed = sum(answer.completed_right for answer in answers) / count
        preferred = sum(answer.preferred_right for answer in answers) / count
        chance = sum(1 / len(answer.scores) for answer in answers) / count
        table.add_row(category, str(count), f"{completed:.1%}", f"{preferred:.1%}", f"{chance:.1%}")
    return table


def main(arguments: Sequence[str], *, program: str = "run.py") -> int:
    """Runs the demo of a command line and returns the exit code."""
    return run_command(lambda: _run(arguments, program))


def _run(arguments: Sequence[str], program: str) -> int:
    """Runs both tasks of the demo and shows what they wrote and how much of it is right."""
    description = str(__doc__).split("\n\n", maxsplit=1)[0]
    config = parse(DemoConfig, arguments, program=program, description=description)
    started = time.monotonic()
    folder = Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    if config.output is not None:
        folder = Path(config.output)
    for task in TASKS:
        code = run_task(task, folder / task)
        if code != ExitCode.OK:
            return code

    completed = read_rows(folder / "generate")
    scored = read_rows(folder / "score")
    answered = join(pq.read_table(PROMPTS), completed, scored)
    for table in (answers_table(answered), accuracy_table(answered)):
        print()
        Console().print(table)
    print(
        f"\n{completed.num_rows} completions and {scored.num_rows} scored rows in "
        f"{time.monotonic() - started:.0f} s:\n"
    )
    for task in TASKS:
        for part in sorted((folder / task / "data").glob("part-*.parquet")):
            print(f"  {part}")
    print(
        "\nThe commands above, typed again, find their rows committed and end at once. Columns: "
        "docs/output.md"
    )
    return ExitCode.OK


if __name__ == "__main__":
    run_main(main)
