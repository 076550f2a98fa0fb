"""MMLU, 5-shot: the likelier of four letters after a question and its choices, as lm-evaluation-harness asks (mmlu 2, tasks 1.0).

All documents of a subject have the same beginning, description and shots, and each is one row with
four choices of one token: a replica computes the beginning once and each question once.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.multiple_choice import accuracy
from pipeline.evals.suite import EvalRequest, Group, PromptOptions, Suite

FOLDER = "mmlu/all"
COLUMNS = ("question", "subject", "choices", "answer")
SHOTS = 5
LETTERS = ("A", "B", "C", "D")
# As lm-evaluation-harness groups them. The paper's own code counts anatomy among "other".
CATEGORIES = {
    "stem": (
        "abstract_algebra anatomy astronomy college_biology college_chemistry "
        "college_computer_science college_mathematics "
        "college_physics computer_security conceptual_physics electrical_engineering "
        "elementary_mathematics high_school_biology "
        "high_school_chemistry high_school_computer_science high_school_mathematics "
        "high_school_physics high_school_statistics "
        "machine_learning"
    ),
    "other": (
        "business_ethics clinical_knowledge college_medicine global_facts human_aging management "
        "marketing medical_genetics "
        "miscellaneous nutrition professional_accounting professional_medicine virology"
    ),
    "social_sciences": (
        "econometrics high_school_geography high_school_government_and_politics "
        "high_school_macroeconomics "
        "high_school_microeconomics high_school_psychology human_sexuality professional_psychology "
        "public_relations "
        "security_studies sociology us_foreign_policy"
    ),
    "humanities": (
        "formal_logic high_school_european_history high_school_us_history "
        "high_school_world_history international_law "
        "jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory "
        "professional_law world_religions"
    ),
}
SUBJECTS = {f"mmlu_{name}": name for names in CATEGORIES.values() for name in names.split()}


def question(row: Mapping[str, Any]) -> str:
    """Returns a question with its choices, up to the place of the answer.

    The question is stripped, the choices are not.
    """
    choices = "".join(
        f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, row["choices"], strict=True)
    )
    return f"{row['question'].strip()}\n{choices}Answer:"


def shot(row: Mapping[str, Any]) -> str:
    """Returns a worked example."""
    return f"{question(row)} {LETTERS[row['answer']]}\n\n"


def prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields the requests of one subject.

    Raises:
        DatasetError: the data set lacks the subject or its shots, or a row is no question with four choices.
    """
    subject = SUBJECTS[task]
    examples = _rows(data, "dev", subject)[:SHOTS]
    if len(examples) < SHOTS:
        raise DatasetError(
            f"{FOLDER}/dev: expected at least {SHOTS} rows of subject '{subject}', found "
            f"{len(examples)}"
        )
    description = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    beginning = description + "".join(map(shot, examples))
    for doc_id, row in enumerate(_rows(data, "test", subject)[: options.limit]):
        choices = tuple(f" {letter}" for letter in LETTERS)
        yield EvalRequest(
            f"{task}/{doc_id}",
            task,
            doc_id,
            beginning + question(row),
            choices[row["answer"]],
            choices,
        )


def has_task(data: DataFolder, task: str) -> bool:
    """Whether the data set holds the subject; a part of MMLU is evaluated as what it is."""
    return any(row["subject"] == SUBJECTS[task] for row in data.rows(FOLDER, "test", COLUMNS))


def _rows(data: DataFolder, split: str, subject: str) -> Sequence[Mapping[str, Any]]:
    rows = [row for row in data.rows(FOLDER, split, COLUMNS) if row["subject"] == subject]
    for number, row in enumerate(rows):
        if (
            len(row["choices"]) != len(LETTERS)
            or None in row["choices"]
            or row["answer"] not in range(len(LETTERS))
        ):
            raise DatasetError(
                f"{FOLDER}/{split}, subject '{subject}', row {number}: expected {len(LETTERS)} "
                "choices and an answer from 0 to "
                f"{len(LETTERS) - 1}, got {row['choices']!r:.200} and {row['answer']!r}"
            )
    return rows


GROUPS = tuple(
    Group(
        f"mmlu_{category}",
        category.replace("_", " "),
        frozenset(f"mmlu_{name}" for name in names.split()),
    )
    for category, names in CATEGORIES.items()
)
SUITES = (
    Suite(
        "mmlu",
        SUBJECTS,
        prompts,
        accuracy,
        has_task,
        (*GROUPS, Group("mmlu", "mmlu", frozenset(SUBJECTS))),
    ),
)
