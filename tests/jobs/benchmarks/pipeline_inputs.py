"""Inputs of the pipeline benchmark, for the tests of this folder."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.jobs.runs import DEMO

BEGINNING = "Every question has one right answer, and every answer is a number or a word. " * 2


def prompts(folder: Path, rows: int) -> Path:
    """Writes rows that share a long beginning, each with two choices of different lengths."""
    texts = [f"{BEGINNING}What is {row} and {row}?" for row in range(rows)]
    choices = [[f" {row}", f" {2 * row} or more"] for row in range(rows)]
    path = folder / "prompts.parquet"
    pq.write_table(pa.table({"prompt": texts, "choices": choices}), path)
    return path


def arguments(folder: Path, rows: int, *more: str) -> list[str]:
    """Returns the flags of a benchmark of the demo model over `rows` rows."""
    flags = {
        "input": prompts(folder, rows),
        "tokenizer": DEMO / "tokenizer.model",
        "folder": folder / "benchmark",
        "model": "demo",
    }
    words: list[str] = []
    for name, value in flags.items():
        words += [f"--{name}", str(value)]
    return [*words, *more]
