"""HellaSwag, 0-shot: the likeliest of four endings of a description (harness: hellaswag 1.0).

The labels of the test rows are not public: the validation rows are scored. Headline figures of
other sources are `acc_norm`.
"""

import re
from collections.abc import Iterator

from actors.protocol.plain_text import quoted
from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.multiple_choice import DELIMITER, accuracy_and_normalized
from pipeline.evals.suite import EvalRequest, PromptOptions, Suite

FOLDER = "hellaswag/data"
SPLIT = "validation"
COLUMNS = ("ctx_a", "ctx_b", "activity_label", "endings", "label")


def prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields the requests.

    Raises:
        DatasetError: the data set is missing, or a label is not the index of an ending.
    """
    documents = data.rows(FOLDER, SPLIT, COLUMNS)[: options.limit]
    for doc_id, row in enumerate(documents):
        endings = row["endings"]
        label = str(row["label"])
        if label not in map(str, range(len(endings))):
            raise DatasetError(
                f"{FOLDER}/{SPLIT}, row {doc_id}: expected a label from 0 to {len(endings) - 1}, "
                f"got {quoted(row['label'])}"
            )
        choices = [f"{DELIMITER}{clean(ending)}" for ending in endings]
        description = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        yield EvalRequest.of_choices(task, doc_id, clean(description), choices, int(label))


def clean(text: str) -> str:
    """Returns a text without the marks in brackets that come from WikiHow pages."""
    text = text.strip()
    text = text.replace(" [title]", ". ")
    text = re.sub(r"\[.*?\]", "", text)
    return text.replace("  ", " ")


SUITES = (Suite("hellaswag", {"hellaswag": "hellaswag"}, prompts, accuracy_and_normalized),)
