"""MMLU-Pro, 5-shot: up to ten choices, reasoned in free text (harness: mmlu_pro 2.0, tasks 3.1).

All questions of a category share a prefix, of instruction and worked examples, which a replica
computes once.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from actors.protocol.plain_text import quoted
from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.suite import Answer, EvalRequest, Group, PromptOptions, Suite, Verdict
from pipeline.evals.text_match import Extraction, equal_without_punctuation

FOLDER = "MMLU-Pro/data"
COLUMNS = ("question", "options", "answer", "cot_content", "category")
SHOTS = 5
LETTERS = "ABCDEFGHIJ"
STOP = ("Question:",)
MAX_TOKENS = 2048
REASONING = "Let's think step by step."
EXTRACTION = Extraction("custom-extract", r"answer is \(?([ABCDEFGHIJ])\)?")
EXACT_MATCH = f"exact_match,{EXTRACTION.name}"
CATEGORIES = (
    "biology",
    "business",
    "chemistry",
    "computer science",
    "economics",
    "engineering",
    "health",
    "history",
    "law",
    "math",
    "other",
    "philosophy",
    "physics",
    "psychology",
)
TASKS = {f"mmlu_pro_{category.replace(' ', '_')}": category for category in CATEGORIES}


def prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields the requests of one category; the target is the letter of the right choice.

    Raises:
        DatasetError: the data set lacks worked examples, or an answer is none of its choices.
    """
    category = TASKS[task]
    examples = _rows(data, "validation", category)[:SHOTS]
    if len(examples) < SHOTS:
        raise DatasetError(
            f"{FOLDER}/validation: expected at least {SHOTS} rows of category '{category}', found "
            f"{len(examples)}"
        )
    shared_prefix = (
        f"The following are multiple choice questions (with answers) about {category}. Think step "
        'by step and then finish your answer with "the answer is (X)" where X is the correct '
        "letter choice.\n"
    )
    for example in examples:
        reasoning = example["cot_content"].replace(f"A: {REASONING} ", "")
        shared_prefix += f"{question(example)} {reasoning}\n\n"

    documents = _rows(data, "test", category)[: options.limit]
    for doc_id, row in enumerate(documents):
        if not _is_answer(row):
            raise DatasetError(
                f"{FOLDER}/test, category '{category}', row {doc_id}: expected the letter of one "
                f"of {len(row['options'])} options, got {quoted(row['answer'])}"
            )
        prompt = shared_prefix + question(row)
        yield EvalRequest.of_completion(
            task, doc_id, prompt, row["answer"], stop=STOP, max_tokens=MAX_TOKENS
        )


def question(row: Mapping[str, Any]) -> str:
    """Returns a question with its options, up to the start of the reasoning."""
    lines = ["Question:", row["question"], "Options:"]
    # an option beyond the last letter is left out, as in the harness
    for letter, option in zip(LETTERS, row["options"], strict=False):
        lines.append(f"{letter}. {option.strip()}")
    lines.append(f"Answer: {REASONING}")
    return "\n".join(lines)


def score(request: EvalRequest, answers: Sequence[Answer]) -> Verdict:
    """Returns whether the letter that the completion names is the target; a failed row is wrong."""
    [answer] = answers
    letter = EXTRACTION.answer(answer.text)
    is_right = equal_without_punctuation(letter, request.target)
    return Verdict({EXACT_MATCH: float(is_right)}, letter)


def has_task(data: DataFolder, task: str) -> bool:
    """Returns whether the data set holds the category: it may be a part of MMLU-Pro."""
    return bool(_rows(data, "test", TASKS[task]))


def _rows(data: DataFolder, split: str, category: str) -> Sequence[Mapping[str, Any]]:
    return [row for row in data.rows(FOLDER, split, COLUMNS) if row["category"] == category]


def _is_answer(row: Mapping[str, Any]) -> bool:
    letters = LETTERS[: len(row["options"])]
    return len(row["answer"]) == 1 and row["answer"] in letters


SUITES = (
    Suite(
        name="mmlu_pro",
        tasks=TASKS,
        prompts=prompts,
        score=score,
        has_task=has_task,
        groups=(Group("mmlu_pro", "mmlu_pro", frozenset(TASKS)),),
    ),
)
