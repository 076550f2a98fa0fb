"""TriviaQA without documents, 0-shot: a fact in a few words (lm-evaluation-harness: triviaqa 3.0).

Right is any of the names that the data set lists for the answer. Answers of the test rows are not
public: the validation rows are completed. The prompt adds a question mark of its own, as in the
harness, also where the question ends with one.
"""

import json
from collections.abc import Iterator, Sequence

from pipeline.errors import DatasetError
from pipeline.evals.data_folder import DataFolder
from pipeline.evals.suite import Answer, EvalRequest, PromptOptions, Suite, Verdict
from pipeline.evals.text_match import equal_without_punctuation

FOLDER = "trivia_qa/rc.nocontext"
SPLIT = "validation"
COLUMNS = ("question", "answer")
STOP = ("\n", ".", ",")
MAX_TOKENS = 256  # the harness's default for models
EXACT_MATCH = "exact_match,remove_whitespace"


def prompts(data: DataFolder, task: str, options: PromptOptions) -> Iterator[EvalRequest]:
    """Yields the requests; the target is a JSON array of all names of the answer.

    Raises:
        DatasetError: the data set is missing, or a question has no answer.
    """
    documents = data.rows(FOLDER, SPLIT, COLUMNS)[: options.limit]
    for doc_id, row in enumerate(documents):
        aliases = list(row["answer"]["aliases"])
        if not aliases:
            raise DatasetError(f"{FOLDER}/{SPLIT}, row {doc_id}: answer.aliases is empty")
        yield EvalRequest.of_completion(
            task,
            doc_id,
            prompt=f"Question: {row['question']}?\nAnswer:",
            target=json.dumps(aliases, ensure_ascii=False),
            stop=STOP,
            max_tokens=MAX_TOKENS,
        )


def score(request: EvalRequest, answers: Sequence[Answer]) -> Verdict:
    """Returns whether the completion is one of the names, without regard to case and punctuation.

    A failed row is wrong.
    """
    [answer] = answers
    text = answer.text.strip()
    is_right = False
    if answer.error is None:
        aliases = json.loads(request.target)
        is_right = any(equal_without_punctuation(text, alias) for alias in aliases)
    return Verdict({EXACT_MATCH: float(is_right)}, text)


SUITES = (Suite("triviaqa", {"triviaqa": "triviaqa"}, prompts, score),)
