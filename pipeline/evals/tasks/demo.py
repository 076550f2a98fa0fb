"""The demo's questions: arithmetic, comparisons, facts, categories and word problems.

    demo_choice    the likeliest of the choices
    demo_answer    the greedy completion, to the letter

The questions are bundled with the demo model, which was not trained on them: an evaluation that
needs no other data. lm-evaluation-harness has no such task.
"""

from collections.abc import Iterator, Sequence

from actors.protocol.plain_text import quoted
from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.multiple_choice import accuracy
from pipeline.evals.suite import Answer, EvalRequest, Group, PromptOptions, Suite, Verdict

FOLDER = "demo/questions"
COLUMNS = ("prompt", "choices", "answer")
CHOICE = "demo_choice"
ANSWER = "demo_answer"
STOP = ("\n",)
MAX_TOKENS = 24
EXACT_MATCH = "exact_match,none"


def prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields the requests of one task.

    Raises:
        DatasetError: the data set is missing, or an answer is none of its choices.
    """
    documents = data.rows(FOLDER, "test", COLUMNS)[: options.limit]
    for doc_id, row in enumerate(documents):
        if row["answer"] not in row["choices"]:
            raise DatasetError(
                f"{FOLDER}/test, row {doc_id}: expected an answer among the choices, got "
                f"{quoted(row['answer'])}"
            )
        if task == CHOICE:
            choices = row["choices"]
            answer = choices.index(row["answer"])
            yield EvalRequest.of_choices(task, doc_id, row["prompt"], choices, answer)
        else:
            yield EvalRequest.of_completion(
                task,
                doc_id,
                row["prompt"],
                row["answer"],
                stop=STOP,
                max_tokens=MAX_TOKENS,
            )


def score(request: EvalRequest, answers: Sequence[Answer]) -> Verdict:
    """Returns whether the likeliest choice, or the completion, is the answer.

    A failed row is wrong.
    """
    if request.choices:
        return accuracy(request, answers)
    [answer] = answers
    text = answer.text.strip()
    is_right = answer.error is None and text == request.target.strip()
    return Verdict({EXACT_MATCH: float(is_right)}, text)


SUITES = (
    Suite(
        name="demo",
        tasks={CHOICE: "choice", ANSWER: "answer"},
        prompts=prompts,
        score=score,
        groups=(Group("demo", "demo", frozenset({CHOICE, ANSWER})),),
    ),
)
