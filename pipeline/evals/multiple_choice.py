"""Accuracy and confidence of an answer, from the log-likelihoods of its choices."""

from collections.abc import Sequence

import numpy as np

from actors.protocol.plain_text import quoted
from pipeline.errors import DatasetError
from pipeline.evals.suite import Answer, EvalRequest, Verdict

ACCURACY = "acc,none"
NORMALIZED_ACCURACY = "acc_norm,none"  # by log-likelihood per character of the choice
DELIMITER = " "  # between the prompt and a choice; not counted as a character of the choice


def accuracy(request: EvalRequest, answers: Sequence[Answer]) -> Verdict:
    """Returns whether the most likely choice is the target.

    Of equally likely ones the first counts, a failed row is wrong.

    Raises:
        DatasetError: the answer has not one log-likelihood per choice, or the target is no choice.
    """
    target = _target_index(request)
    loglikelihoods = choice_loglikelihoods(request, answers)
    if loglikelihoods is None:
        return Verdict({ACCURACY: 0.0}, "")
    choices = request.choices or ()
    chosen = int(np.argmax(loglikelihoods))
    return Verdict(
        {ACCURACY: float(chosen == target)},
        choices[chosen],
        confidence(loglikelihoods),
    )


def accuracy_and_normalized(request: EvalRequest, answers: Sequence[Answer]) -> Verdict:
    """Returns `accuracy`, and whether the choice most likely per character is the target.

    A choice starts with `DELIMITER`, which lm-evaluation-harness does not count among its
    characters.

    Raises:
        DatasetError: as `accuracy` does, or a choice is empty.
    """
    verdict = accuracy(request, answers)
    loglikelihoods = choice_loglikelihoods(request, answers)
    if loglikelihoods is None:
        return Verdict({ACCURACY: 0.0, NORMALIZED_ACCURACY: 0.0}, "")

    lengths = [len(choice.removeprefix(DELIMITER)) for choice in request.choices or ()]
    if 0 in lengths:
        raise DatasetError(
            f"request {request.id}: choice {lengths.index(0)} is empty, so it has no "
            "log-likelihood per character"
        )
    chosen = int(np.argmax(loglikelihoods / np.array(lengths)))
    is_right = chosen == _target_index(request)
    values = {**verdict.values, NORMALIZED_ACCURACY: float(is_right)}
    return Verdict(values, verdict.answer, verdict.confidence)


def choice_loglikelihoods(
    request: EvalRequest, answers: Sequence[Answer]
) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    """Returns the log-likelihood of each choice, natural log; None for a row that failed.

    Raises:
        DatasetError: the answer has not one log-likelihood per choice.
    """
    [answer] = answers
    if answer.error is not None:
        return None
    choices = request.choices or ()
    if len(answer.loglikelihoods) != len(choices):
        raise DatasetError(
            f"output row {request.id}: expected {len(choices)} log-likelihoods, one per choice, "
            f"got {len(answer.loglikelihoods)}"
        )
    return np.array(answer.loglikelihoods)


def confidence(loglikelihoods: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Returns the probability of the most likely one among the candidates."""
    return float(1 / np.exp(loglikelihoods - loglikelihoods.max()).sum())


def _target_index(request: EvalRequest) -> int:
    choices = request.choices or ()
    if request.target not in choices:
        raise DatasetError(
            f"request {request.id}: the target {quoted(request.target)} is none of its choices "
            f"{list(choices)}"
        )
    return choices.index(request.target)
