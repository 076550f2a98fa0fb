"""WinoGrande, 0-shot: which of two names fills a gap (lm-evaluation-harness: winogrande 1.0).

Scored is the part of the sentence after the gap, given the part before it and each name ("partial
evaluation", Trinh and Le 2018). Both sentences of a document are one row that shares the part
before the gap: the log-likelihood of the rest after a name is that of name and rest, less that of
the name. A sentence that starts with its gap is scored after the end-of-text token, which the
harness leaves out. The labels of the test rows are not public: the validation rows are scored.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from actors.protocol.plain_text import quoted
from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.multiple_choice import ACCURACY, choice_loglikelihoods, confidence
from pipeline.evals.suite import Answer, EvalRequest, PromptOptions, Suite, Verdict

FOLDER = "winogrande/winogrande_xl"
SPLIT = "validation"
COLUMNS = ("sentence", "option1", "option2", "answer")
GAP = "_"
ANSWERS = ("1", "2")


def prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields the requests.

    The choices are both names with the rest of the sentence, then both names alone.

    Raises:
        DatasetError: the data set is missing, or a row has no gap or no answer.
    """
    documents = data.rows(FOLDER, SPLIT, COLUMNS)[: options.limit]
    for doc_id, row in enumerate(documents):
        before, gap, rest = row["sentence"].partition(GAP)
        if not gap or row["answer"] not in ANSWERS:
            raise DatasetError(
                f"{FOLDER}/{SPLIT}, row {doc_id}: expected a sentence with {GAP!r} and an answer "
                f"of {list(ANSWERS)}, got {quoted(row['sentence'])} and {quoted(row['answer'])}"
            )
        # a trailing space belongs to the first token after it
        prompt = before.rstrip()
        space = before[len(prompt) :]
        names = [f"{space}{row[option]}" for option in ("option1", "option2")]
        sentences = [f"{name} {rest.strip()}" for name in names]
        choices = (*sentences, *names)
        yield EvalRequest.of_choices(task, doc_id, prompt, choices, ANSWERS.index(row["answer"]))


def score(request: EvalRequest, answers: Sequence[Answer]) -> Verdict:
    """Returns whether the rest of the sentence is likelier after the right name.

    A failed row is wrong.

    Raises:
        DatasetError: the answer has not one log-likelihood per choice, or the target is no choice.
    """
    loglikelihoods = choice_loglikelihoods(request, answers)
    if loglikelihoods is None:
        return Verdict({ACCURACY: 0.0}, "")

    choices = request.choices or ()
    count = len(ANSWERS)
    rest_loglikelihoods = loglikelihoods[:count] - loglikelihoods[count:]
    chosen = int(np.argmax(rest_loglikelihoods))
    is_right = choices[chosen] == request.target
    return Verdict(
        {ACCURACY: float(is_right)},
        choices[count + chosen],
        confidence(rest_loglikelihoods),
    )


SUITES = (
    Suite(
        "winogrande",
        {"winogrande": "winogrande"},
        prompts,
        score,
        choices_per_candidate=2,
    ),
)
