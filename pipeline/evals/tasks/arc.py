"""ARC, 0-shot: science questions of school tests (lm-evaluation-harness: arc_easy 1.0, 1.0).

    arc_easy         questions that simple methods answer
    arc_challenge    the others

Each choice is scored as a text, not as a letter; a question has three to five choices. Published
25-shot figures are not comparable.
"""

from collections.abc import Iterator

from actors.protocol.plain_text import quoted
from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.multiple_choice import DELIMITER, accuracy_and_normalized
from pipeline.evals.suite import EvalRequest, PromptOptions, Suite

FOLDERS = {"arc_easy": "ai2_arc/ARC-Easy", "arc_challenge": "ai2_arc/ARC-Challenge"}
COLUMNS = ("question", "choices", "answerKey")


def prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields the requests of one task.

    Raises:
        DatasetError: the data set is missing, or an answer is none of its choices.
    """
    folder = FOLDERS[task]
    documents = data.rows(folder, "test", COLUMNS)[: options.limit]
    for doc_id, row in enumerate(documents):
        labels = list(row["choices"]["label"])
        texts = list(row["choices"]["text"])
        answer = row["answerKey"]
        if answer not in labels or len(labels) != len(texts) or None in texts:
            raise DatasetError(
                f"{folder}/test, row {doc_id}: expected a text for each label and an answerKey "
                f"among the labels, got {quoted(texts)}, {quoted(labels)} and {quoted(answer)}"
            )
        choices = [f"{DELIMITER}{text}" for text in texts]
        prompt = f"Question: {row['question']}\nAnswer:"
        yield EvalRequest.of_choices(task, doc_id, prompt, choices, labels.index(answer))


SUITES = tuple(Suite(task, {task: task}, prompts, accuracy_and_normalized) for task in FOLDERS)
