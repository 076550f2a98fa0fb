"""Questions of the demo in the form of MMLU and GSM8K: data, prompts and metrics of these tasks.

    demo_mmlu     the most likely of four letters, as in `mmlu`
    demo_gsm8k    a word problem answered in free text, with both filters of `gsm8k_cot`

The questions are bundled with the demo model, which was not trained on them. They have no worked
examples before them: the model is trained on single questions. The columns are those of the hub's
cais/mmlu and openai/gsm8k.
"""

from collections.abc import Iterator, Sequence

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.multiple_choice import accuracy
from pipeline.evals.suite import Answer, EvalRequest, PromptOptions, Suite, Verdict
from pipeline.evals.tasks.gsm8k import EXTRACTIONS, IGNORED
from pipeline.evals.text_match import exact_match

MMLU = "demo_mmlu"
GSM8K = "demo_gsm8k"
MMLU_FOLDER = "demo/mmlu"
GSM8K_FOLDER = "demo/gsm8k"
LETTERS = ("A", "B", "C", "D")
STOP = ("Q:", "\n")
MAX_TOKENS = 32


def mmlu_prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields a request for each multiple-choice question.

    Raises:
        DatasetError: the data set is missing, or a question has not four choices and an answer.
    """
    documents = data.rows(MMLU_FOLDER, "test", ("question", "choices", "answer"))
    letters = tuple(f" {letter}" for letter in LETTERS)
    for doc_id, row in enumerate(documents[: options.limit]):
        if len(row["choices"]) != len(LETTERS) or row["answer"] not in range(len(LETTERS)):
            raise DatasetError(
                f"{MMLU_FOLDER}/test, row {doc_id}: expected {len(LETTERS)} choices and the index "
                f"of one, got {len(row['choices'])} and {row['answer']}"
            )
        lines = [row["question"]]
        for letter, choice in zip(LETTERS, row["choices"], strict=True):
            lines.append(f"{letter}. {choice}")
        lines.append("Answer:")
        yield EvalRequest.of_choices(task, doc_id, "\n".join(lines), letters, row["answer"])


def gsm8k_prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields a request for each word problem.

    Raises:
        DatasetError: the data set is missing.
    """
    documents = data.rows(GSM8K_FOLDER, "test", ("question", "answer"))
    for doc_id, row in enumerate(documents[: options.limit]):
        yield EvalRequest.of_completion(
            task,
            doc_id,
            prompt=f"Q: {row['question']}\nA:",
            target=row["answer"].split("####")[-1].strip(),
            stop=STOP,
            max_tokens=MAX_TOKENS,
        )


def gsm8k_score(request: EvalRequest, answers: Sequence[Answer]) -> Verdict:
    """Returns whether each filter of gsm8k_cot finds the right number; a failed row is wrong."""
    [answer] = answers
    values: dict[str, float] = {}
    extracted: list[str] = []
    for extraction in EXTRACTIONS["gsm8k_cot"]:
        text = extraction.answer(answer.text)
        extracted.append(text)
        values[f"exact_match,{extraction.name}"] = float(exact_match(text, request.target, IGNORED))
    return Verdict(values, " | ".join(dict.fromkeys(extracted)))


SUITES = (
    Suite(MMLU, {MMLU: MMLU}, mmlu_prompts, accuracy),
    Suite(GSM8K, {GSM8K: GSM8K}, gsm8k_prompts, gsm8k_score),
)
