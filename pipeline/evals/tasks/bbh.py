"""BIG-Bench Hard, 3-shot with reasoning (lm-evaluation-harness: bbh_cot_fewshot 3.0, tasks 4.0).

27 tasks that earlier models answered worse than people did. Descriptions and worked examples are
texts of Suzgun et al. (2022) and come with the data, as bbh/cot_shots.jsonl; evaluate_cot_shots.py
writes the file. The pattern of the answer drops the last character of the line, a full stop.
"""

from collections.abc import Iterator, Sequence

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.suite import Answer, EvalRequest, Group, PromptOptions, Suite, Verdict
from pipeline.evals.text_match import Extraction

FOLDER = "bbh"
COLUMNS = ("input", "target")
SHOTS_FILE = "bbh/cot_shots.jsonl"
SHOTS_COLUMNS = ("task", "description", "input", "target")
SHOTS = 3
STOP = ("</s>", "Q", "\n\n")
MAX_TOKENS = 1024
EXTRACTION = Extraction("get-answer", r"(?<=the answer is )(.*)(?=.)")
EXACT_MATCH = f"exact_match,{EXTRACTION.name}"
GROUP = "bbh_cot_fewshot"
SUBJECTS = (
    "boolean_expressions",
    "causal_judgement",
    "date_understanding",
    "disambiguation_qa",
    "dyck_languages",
    "formal_fallacies",
    "geometric_shapes",
    "hyperbaton",
    "logical_deduction_five_objects",
    "logical_deduction_seven_objects",
    "logical_deduction_three_objects",
    "movie_recommendation",
    "multistep_arithmetic_two",
    "navigate",
    "object_counting",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "ruin_names",
    "salient_translation_error_detection",
    "snarks",
    "sports_understanding",
    "temporal_sequences",
    "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects",
    "tracking_shuffled_objects_three_objects",
    "web_of_lies",
    "word_sorting",
)
TASKS = {f"{GROUP}_{subject}": subject for subject in SUBJECTS}


def prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields the requests of one task.

    Raises:
        DatasetError: the data set or the file of worked examples is missing, or has too few rows.
    """
    subject = TASKS[task]
    shared_prefix = _shared_prefix(data, subject)
    documents = data.rows(f"{FOLDER}/{subject}", "test", COLUMNS)[: options.limit]
    for doc_id, row in enumerate(documents):
        prompt = shared_prefix + question(row["input"])
        yield EvalRequest.of_completion(
            task, doc_id, prompt, row["target"], stop=STOP, max_tokens=MAX_TOKENS
        )


def _shared_prefix(data: DataFolder, subject: str) -> str:
    rows = data.json_lines(SHOTS_FILE, SHOTS_COLUMNS)
    examples = [row for row in rows if row["task"] == subject]
    if len(examples) != SHOTS:
        raise DatasetError(
            f"{SHOTS_FILE}: expected {SHOTS} worked examples of task '{subject}', found "
            f"{len(examples)}"
        )
    prefix = examples[0]["description"]
    for example in examples:
        prefix += f"{question(example['input'])}{example['target']}\n\n"
    return prefix


def question(text: str) -> str:
    """Returns a question up to the start of the reasoning."""
    return f"Q: {text}\nA: Let's think step by step.\n"


def score(request: EvalRequest, answers: Sequence[Answer]) -> Verdict:
    """Returns whether the answer that the completion names is the target, to the letter.

    A failed row is wrong.
    """
    [answer] = answers
    text = EXTRACTION.answer(answer.text)
    return Verdict({EXACT_MATCH: float(text == request.target)}, text)


def has_task(data: DataFolder, task: str) -> bool:
    """Returns whether the data folder holds the task: it may have some of them only."""
    return data.has_split(f"{FOLDER}/{TASKS[task]}", "test")


SUITES = (
    Suite(
        name="bbh",
        tasks=TASKS,
        prompts=prompts,
        score=score,
        has_task=has_task,
        groups=(Group(GROUP, "bbh", frozenset(TASKS)),),
    ),
)
