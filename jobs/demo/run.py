"""Nothing -> a fresh folder runs/demo-<time> with both tasks of the main job over the demo's questions, and a look at them.

    make demo        (or: python jobs/demo/run.py [--output FOLDER])

Runs `jobs/score_dataset.py` as a user would, in processes of its own, and prints the commands; then reads the Parquet files
they left. Knows nothing of models or Ray.
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = "jobs/demo/prompts.parquet"
FLAGS = {"--model": "demo", "--input": PROMPTS, "--replicas": "2", "--mesh": "1x4"}
TASKS = {
    "generate": {"--task": "generate", "--max-tokens": "12", "--temperature": "0.8", "--seed": "7", "--logprobs": "2"},
    "score": {"--task": "score"},
}
ROWS_SHOWN = 5


def run_task(task: str, output: Path) -> None:
    """Prints and runs the main job for one task.

    Raises:
        SystemExit: the job failed; carries its exit code.
    """
    flags = {**FLAGS, **TASKS[task], "--output": str(output)}
    arguments = [word for pair in flags.items() for word in pair]
    print(f"\n$ .venv/bin/python {shlex.join(['jobs/score_dataset.py', *arguments])}", flush=True)
    # A Ray of its own, whatever else runs on this machine; and each program is compiled once, not once per run and replica.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = cache | dict(os.environ) | {"RAY_ADDRESS": "local"}
    command = [sys.executable, "jobs/score_dataset.py", *arguments]
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if code != 0:
        sys.exit(code)


def read_rows(output: Path) -> pa.Table:
    """Returns all rows of a run folder."""
    table: pa.Table = ds.dataset(ROOT / output / "data", format="parquet").to_table()
    return table


def joined_table(completed: pa.Table, scored: pa.Table) -> Table:
    """Returns the first questions with what both runs say of them. A run does not copy its prompts: they are joined by id."""
    questions = {question["id"]: question for question in pq.read_table(ROOT / PROMPTS).to_pylist()}
    scores_by_id = {row["id"]: row["loglikelihood"] for row in scored.select(["id", "loglikelihood"]).to_pylist()}
    shown = Table(title="both runs, joined with their prompts by id", title_justify="left", show_lines=True)
    for name in ("prompt", "completion", "choice: log-likelihood"):
        shown.add_column(name, overflow="fold", ratio=1)
    for row in completed.slice(0, ROWS_SHOWN).to_pylist():
        question, scores = questions[row["id"]], scores_by_id[row["id"]]
        best = max(scores)
        choices = zip(question["choices"], scores, strict=True)
        listed = "\n".join(f"{choice!r}: {score:.2f}{'  <- preferred' if score == best else ''}" for choice, score in choices)
        completion = f"{row['text']!r}\n{row['completion_tokens']} tokens, log-prob {row['cumulative_logprob']:.2f}"
        shown.add_row(Text(question["prompt"]), Text(completion), Text(f"{listed}\n(right: {question['answer']!r})"))
    return shown


def main(output: Path | None = None) -> None:
    """Runs both tasks of the demo and shows what they wrote.

    Args:
        output: run folder, made if absent; default: a new folder runs/demo-<time>.
    """
    started = time.monotonic()
    folder = output or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    for task in TASKS:
        run_task(task, folder / task)
    completed, scored = read_rows(folder / "generate"), read_rows(folder / "score")
    print()
    Console().print(joined_table(completed, scored))
    print("\nThe demo model has random weights: it shows the way from Parquet to Parquet, its answers mean nothing.")
    print(f"{completed.num_rows} completions and {scored.num_rows} scored rows in {time.monotonic() - started:.0f} s:\n")
    for task in TASKS:
        for part in sorted((ROOT / folder / task / "data").glob("part-*.parquet")):
            print(f"  {part.relative_to(ROOT) if part.is_relative_to(ROOT) else part}")
    print("\nThe commands above, typed again, find their rows committed and end at once. Columns: docs/output.md")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
