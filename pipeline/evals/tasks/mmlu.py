"""MMLU, 5-shot: the likeliest of four letters after a question and its choices.

As in lm-evaluation-harness (mmlu 2, tasks 1.0). All documents of a subject share a prefix, of
description and shots, and each is one row with four choices of one token: a replica computes the
prefix once and each question once.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from actors.protocol.plain_text import quoted
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
        "abstract_algebra",
        "anatomy",
        "astronomy",
        "college_biology",
        "college_chemistry",
        "college_computer_science",
        "college_mathematics",
        "college_physics",
        "computer_security",
        "conceptual_physics",
        "electrical_engineering",
        "elementary_mathematics",
        "high_school_biology",
        "high_school_chemistry",
        "high_school_computer_science",
        "high_school_mathematics",
        "high_school_physics",
        "high_school_statistics",
        "machine_learning",
    ),
    "other": (
        "business_ethics",
        "clinical_knowledge",
        "college_medicine",
        "global_facts",
        "human_aging",
        "management",
        "marketing",
        "medical_genetics",
        "miscellaneous",
        "nutrition",
        "professional_accounting",
        "professional_medicine",
        "virology",
    ),
    "social_sciences": (
        "econometrics",
        "high_school_geography",
        "high_school_government_and_politics",
        "high_school_macroeconomics",
        "high_school_microeconomics",
        "high_school_psychology",
        "human_sexuality",
        "professional_psychology",
        "public_relations",
        "security_studies",
        "sociology",
        "us_foreign_policy",
    ),
    "humanities": (
        "formal_logic",
        "high_school_european_history",
        "high_school_us_history",
        "high_school_world_history",
        "international_law",
        "jurisprudence",
        "logical_fallacies",
        "moral_disputes",
        "moral_scenarios",
        "philosophy",
        "prehistory",
        "professional_law",
        "world_religions",
    ),
}


def _subjects() -> dict[str, str]:
    """Returns the subject of each task."""
    subjects = {}
    for category_subjects in CATEGORIES.values():
        for subject in category_subjects:
            subjects[f"mmlu_{subject}"] = subject
    return subjects


def _groups() -> tuple[Group, ...]:
    """Returns a group for each category, and then one for all subjects."""
    groups = []
    for category, subjects in CATEGORIES.items():
        tasks = frozenset(f"mmlu_{subject}" for subject in subjects)
        groups.append(Group(f"mmlu_{category}", category.replace("_", " "), tasks))
    return (*groups, Group("mmlu", "mmlu", frozenset(SUBJECTS)))


SUBJECTS = _subjects()


def question(row: Mapping[str, Any]) -> str:
    """Returns a question with its choices, up to the place of the answer.

    The question is stripped, the choices are not.
    """
    choices = ""
    for letter, choice in zip(LETTERS, row["choices"], strict=True):
        choices += f"{letter}. {choice}\n"
    return f"{row['question'].strip()}\n{choices}Answer:"


def shot(row: Mapping[str, Any]) -> str:
    """Returns a worked example."""
    return f"{question(row)} {LETTERS[row['answer']]}\n\n"


def prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields the requests of one subject.

    Raises:
        DatasetError: the data set lacks the subject or its shots, or a row has not four choices and
            an answer.
    """
    subject = SUBJECTS[task]
    examples = _rows(data, "dev", subject)[:SHOTS]
    if len(examples) < SHOTS:
        raise DatasetError(
            f"{FOLDER}/dev: expected at least {SHOTS} rows of subject '{subject}', found "
            f"{len(examples)}"
        )
    subject_name = subject.replace("_", " ")
    description = (
        f"The following are multiple choice questions (with answers) about {subject_name}.\n\n"
    )
    shared_prefix = description + "".join(map(shot, examples))
    choices = tuple(f" {letter}" for letter in LETTERS)
    documents = _rows(data, "test", subject)[: options.limit]
    for doc_id, row in enumerate(documents):
        prompt = shared_prefix + question(row)
        yield EvalRequest.of_choices(task, doc_id, prompt, choices, row["answer"])


def has_task(data: DataFolder, task: str) -> bool:
    """Returns whether the data set holds the subject: it may be a part of MMLU."""
    return any(row["subject"] == SUBJECTS[task] for row in data.rows(FOLDER, "test", COLUMNS))


def _rows(data: DataFolder, split: str, subject: str) -> Sequence[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    for row in data.rows(FOLDER, split, COLUMNS):
        if row["subject"] != subject:
            continue
        choices = row["choices"]
        answer = row["answer"]
        has_choices = len(choices) == len(LETTERS) and None not in choices
        if not has_choices or answer not in range(len(LETTERS)):
            raise DatasetError(
                f"{FOLDER}/{split}, subject '{subject}', row {len(rows)}: expected {len(LETTERS)} "
                f"choices and an answer from 0 to {len(LETTERS) - 1}, got {quoted(choices)} and "
                f"{quoted(answer)}"
            )
        rows.append(row)
    return rows


SUITES = (
    Suite(
        "mmlu",
        SUBJECTS,
        prompts,
        accuracy,
        has_task,
        _groups(),
    ),
)
