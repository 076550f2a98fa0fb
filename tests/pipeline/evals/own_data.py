"""Small data sets in the hub's layout, with texts of this project: MMLU, GSM8K and HumanEval."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# of three categories: stem, stem, social sciences
SUBJECTS = ("abstract_algebra", "anatomy", "econometrics")
TEST_ROWS = {"abstract_algebra": 4, "anatomy": 3, "econometrics": 2}
PROBLEMS = 5
TASK_IDS = ("add", "double", "negative")


def write(folder: Path) -> Path:
    """Writes all data sets and returns the folder."""
    _mmlu(folder / "mmlu" / "all")
    _gsm8k(folder / "gsm8k")
    _humaneval(folder / "humaneval" / "openai_humaneval")
    return folder


def rewrite(file: Path, rows: list[dict[str, object]]) -> None:
    """Replaces a file of a data set."""
    pq.write_table(pa.Table.from_pylist(rows), file)


def _table(path: Path, rows: list[dict[str, object]], part: str = "00000-of-00001") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rewrite(path.with_name(f"{path.name}-{part}.parquet"), rows)


def choice_row(subject: str, number: int) -> dict[str, object]:
    """A question whose right choice is its number modulo four."""
    choices = [f"{number + step} steps " for step in range(4)]
    return {
        "question": f" In {subject}, which count is number {number}? ",
        "subject": subject,
        "choices": choices,
        "answer": number % 4,
    }


def _mmlu(folder: Path) -> None:
    # Subjects are interleaved, as no reader may rely on their order; shots are the first five of
    # seven.
    _table(
        folder / "dev",
        [choice_row(subject, number + 100) for number in range(7) for subject in SUBJECTS],
    )
    rows = [
        choice_row(subject, number)
        for number in range(4)
        for subject in SUBJECTS
        if number < TEST_ROWS[subject]
    ]
    _table(folder / "test", rows[:5], "00000-of-00002")
    _table(folder / "test", rows[5:], "00001-of-00002")


def problem(number: int) -> dict[str, object]:
    """A word problem; its answer is 1,002 more than twice its number."""
    question = f"Mira has {number} pens and buys as many, then 1002. How many has she?"
    twice = 2 * number
    answer = f"Twice {number} is <<{number}*2={twice}>>{twice}.\n#### {twice + 1002:,}"
    return {"question": question, "answer": answer}


def _gsm8k(folder: Path) -> None:
    _table(folder / "main" / "train", [problem(number) for number in range(100, 109)])
    _table(folder / "main" / "test", [problem(number) for number in range(PROBLEMS)])
    shots = [
        {
            "question": f"What is {number} and 1?",
            "answer": f"It is {number + 1}. The answer is {number + 1}.",
        }
        for number in range(8)
    ]
    (folder / "cot_shots.jsonl").write_text("".join(json.dumps(shot) + "\n" for shot in shots))


def _humaneval(folder: Path) -> None:
    bodies = (
        "def add(a, b):\n    '''Sum.'''\n",
        "def double(a):\n    '''Twice.'''\n",
        "def negative(a):\n    '''Minus.'''\n",
    )
    checks = (
        "assert candidate(2, 3) == 5",
        "assert candidate(4) == 8",
        "assert candidate(4) == -4",
    )
    rows: list[dict[str, object]] = [
        {
            "task_id": f"Own/{number}",
            "prompt": body,
            "canonical_solution": "",
            "entry_point": name,
            "test": f"def check(candidate):\n    {check}\n",
        }
        for number, (name, body, check) in enumerate(zip(TASK_IDS, bodies, checks, strict=True))
    ]
    _table(folder / "test", rows)
