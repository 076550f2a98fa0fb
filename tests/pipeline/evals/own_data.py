"""Small data sets in the hub's layout, with texts of this project, for every suite."""

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
    _arc(folder / "ai2_arc")
    _hellaswag(folder / "hellaswag" / "data")
    _winogrande(folder / "winogrande" / "winogrande_xl")
    _triviaqa(folder / "trivia_qa" / "rc.nocontext")
    _mmlu_pro(folder / "MMLU-Pro" / "data")
    _bbh(folder / "bbh")
    return folder


def files(folder: Path) -> list[Path]:
    """Returns all files of the data sets."""
    return [path for path in folder.rglob("*") if path.is_file()]


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


def arc_row(number: int, labels: str = "ABCD") -> dict[str, object]:
    """A question whose right choice is its number modulo the number of choices."""
    texts = [f"{number + step} grams" for step in range(len(labels))]
    return {
        "question": f"How heavy is stone {number}?",
        "choices": {"text": texts, "label": list(labels)},
        "answerKey": labels[number % len(labels)],
    }


def _arc(folder: Path) -> None:
    # labels are numbers in some questions, and the number of choices varies
    _table(folder / "ARC-Easy" / "test", [arc_row(0), arc_row(1, "123"), arc_row(2, "ABCDE")])
    _table(folder / "ARC-Challenge" / "test", [arc_row(number) for number in range(5, 8)])


def _hellaswag(folder: Path) -> None:
    rows: list[dict[str, object]] = [
        {
            "activity_label": "Planting a tree",
            "ctx_a": "A woman digs a hole [step] in a garden.  She",
            "ctx_b": "the tree",
            "endings": [
                "is lifted [title] into it.",
                " [substeps] is eaten by it. ",
                "sings  to her.",
                "drives away.",
            ],
            "label": "0",
        },
        {
            "activity_label": "Tea",
            "ctx_a": "Water boils. [title] How to pour",
            "ctx_b": "",
            "endings": ["It is poured.", "It is paint.", "It is sand.", "It is loud."],
            "label": "2",
        },
    ]
    _table(folder / "validation", rows)


def _winogrande(folder: Path) -> None:
    rows: list[dict[str, object]] = [
        {
            "sentence": "The box did not fit the shelf because the _ was too wide.",
            "option1": "box",
            "option2": "shelf",
            "answer": "1",
        },
        {
            "sentence": "_ thanked Nora for the help that Ada had been given.",
            "option1": "Nora",
            "option2": "Ada",
            "answer": "2",
        },
    ]
    _table(folder / "validation", rows)


def _triviaqa(folder: Path) -> None:
    rows: list[dict[str, object]] = [
        {
            "question": "Which river flows through Basel?",
            "answer": {"value": "Rhine", "aliases": ["Rhine", "The Rhine", "Rhein (river)"]},
        },
        {
            "question": "How many legs has a spider",
            "answer": {"value": "Eight", "aliases": ["8", "Eight"]},
        },
    ]
    _table(folder / "validation", rows)


def reasoned_row(category: str, number: int) -> dict[str, object]:
    """A question of MMLU-Pro whose right choice is its number."""
    options = [f" {number * step} apples" for step in range(10)]
    letter = "ABCDEFGHIJ"[number % 10]
    return {
        "question": f"How many apples are {number} times {number % 10} apples?",
        "options": options,
        "answer": letter,
        "cot_content": f"A: Let's think step by step. We multiply. The answer is ({letter}).",
        "category": category,
    }


def _mmlu_pro(folder: Path) -> None:
    categories = ("math", "computer science")
    _table(
        folder / "validation",
        [reasoned_row(category, number) for number in range(1, 7) for category in categories],
    )
    rows = [reasoned_row(category, number) for number in (7, 8) for category in categories]
    _table(folder / "test", rows)


def _bbh(folder: Path) -> None:
    subjects = ("navigate", "word_sorting")
    shots = []
    for subject in subjects:
        _table(
            folder / subject / "test",
            [
                {"input": f"Question {number}?", "target": f"{subject} {number}"}
                for number in (1, 2)
            ],
        )
        for number in range(3):
            shot = {
                "task": subject,
                "description": f"Solve {subject}.\n\n",
                "input": f"Example {number}?",
                "target": f"We count. So the answer is {number}.",
            }
            shots.append(shot)
    (folder / "cot_shots.jsonl").write_text("".join(json.dumps(shot) + "\n" for shot in shots))
