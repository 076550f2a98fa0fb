"""Accuracy and confidence of an answer, from the log-likelihoods of its choices."""

from collections.abc import Sequence

import numpy as np

from actors.protocol.plain_text import quoted
from pipeline.errors import DatasetError
from pipeline.evals.suite import Answer, EvalRequest, Verdict

ACCURACY = "acc,none"


def accuracy(request: EvalRequest, answers: Sequence[Answer]) -> Verdict:
    """Returns whether the most likely choice is the target.

    Of equally likely ones the first counts, a failed row is wrong.

    Raises:
        DatasetError: the answer has not one log-likelihood per choice, or the target is no choice.
    """
    [answer] = answers
    choices = request.choices or ()
    if request.target not in choices:
        raise DatasetError(
            f"request {request.id}: the target {quoted(request.target)} is none of its choices "
            f"{list(choices)}"
        )
    if answer.error is not None:
        return Verdict({ACCURACY: 0.0}, "")
    if len(answer.loglikelihoods) != len(choices):
        raise DatasetError(
            f"output row {request.id}: expected {len(choices)} log-likelihoods, one per choice, "
            f"got {len(answer.loglikelihoods)}"
        )
    chosen = int(np.argmax(answer.loglikelihoods))
    return Verdict({ACCURACY: float(chosen == choices.index(request.target))}, choices[chosen])


def confidence(answer: Answer) -> float | None:
    """Returns the probability of the chosen one among the choices.

    None for an answer without log-likelihoods.
    """
    if not answer.loglikelihoods:
        return None
    scores = np.array(answer.loglikelihoods)
    return float(1 / np.exp(scores - scores.max()).sum())
